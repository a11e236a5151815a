/// The hardware that a device asks for; defaults are filled in and ranges checked before a provider sees it.
public struct DeviceSpec: Sendable, Equatable, Codable {
    public var cpuCores: Int
    public var memoryMB: Int
    public var storageMB: Int
    public var widthPixels: Int
    public var heightPixels: Int
    public var dpi: Int
    /// As the caller wrote it, e.g. `11`, `13.0`; `AndroidVersion` compares them.
    public var androidVersion: String

    public init(
        cpuCores: Int, memoryMB: Int, storageMB: Int, widthPixels: Int, heightPixels: Int, dpi: Int,
        androidVersion: String
    ) {
        self.cpuCores = cpuCores
        self.memoryMB = memoryMB
        self.storageMB = storageMB
        self.widthPixels = widthPixels
        self.heightPixels = heightPixels
        self.dpi = dpi
        self.androidVersion = androidVersion
    }
}
