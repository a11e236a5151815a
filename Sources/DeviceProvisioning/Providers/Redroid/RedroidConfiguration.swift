/// How the redroid provider reaches its Docker engine and adb server, and what its containers look like.
public struct RedroidConfiguration: Sendable {
    /// Told apart from other installations on the same engine by this, in a label of every container and volume.
    public var installation: String
    public var engine: DockerEndpoint
    /// The image for each Android version. A caller never chooses an image: it runs privileged.
    public var images: [AndroidVersion: String]
    /// The host address that device ports are bound on. adb on it is an unauthenticated root shell [127.0.0.1].
    public var bindAddress: String
    /// The host that callers are told to connect to.
    public var advertisedHost: String
    /// The host under which the adb server reaches the bound ports.
    public var adbTargetHost: String
    /// The name of this engine's host in the port pool, and its ranges.
    public var ports: PortHost
    public var adbServerHost: String
    public var adbServerPort: Int
    /// Start an adb server when none listens (only possible on this machine).
    public var startsADBServer: Bool
    /// How long a device may take from its start until `sys.boot_completed` [60 s].
    public var bootLimit: Duration
    /// Frames per second where the caller names none [30].
    public var framesPerSecond: Int
    /// `auto`, `host` or `guest`, where the caller names none [auto].
    public var gpuMode: String
    /// Further boot arguments for every device, e.g. `androidboot.use_memfd=1`.
    public var extraBootArguments: [String]
    /// Limit /data to the device's storage; needs a file system with project quotas under the engine's volumes.
    public var limitsStorage: Bool
    /// The longest that one create, stop, destroy or find takes [30 s].
    public var callLimit: Duration
    /// Connections to the engine at a time; further requests wait [128].
    public var maximumConnections: Int = Self.usualMaximumConnections
    public static let usualMaximumConnections = 128

    /// The port inside the container that adb listens on.
    static let adbContainerPort = "5555/tcp"
    /// The port inside the container that a WebRTC server listens on.
    static let webRTCContainerPort = "8080/tcp"
    static let gpuModes = ["auto", "host", "guest"]
    static let framesPerSecondRange = 1...240

    public static let defaultImages: [AndroidVersion: String] = {
        var images: [AndroidVersion: String] = [:]
        for major in 11...13 {
            if let version = AndroidVersion("\(major)") {
                images[version] = "redroid/redroid:\(major).0.0-latest"
            }
        }
        return images
    }()

    public init(installation: String, engine: DockerEndpoint, ports: PortHost) {
        self.installation = installation
        self.engine = engine
        self.images = Self.defaultImages
        self.bindAddress = "127.0.0.1"
        self.advertisedHost = "127.0.0.1"
        self.adbTargetHost = "127.0.0.1"
        self.ports = ports
        self.adbServerHost = "127.0.0.1"
        self.adbServerPort = 5037
        self.startsADBServer = true
        self.bootLimit = .seconds(60)
        self.framesPerSecond = 30
        self.gpuMode = "auto"
        self.extraBootArguments = []
        self.limitsStorage = false
        self.callLimit = .seconds(30)
    }
}
