import SagaRuntime

/// What CLAIM_DEVICE leaves to the steps after it: what the device's row says, or that there is nothing to do.
enum ClaimedDevice: Equatable {
    struct Device: Equatable {
        /// The saga that created it.
        var creation: SagaID
        var made: MadeDevice
        var ports: PortPair?
        /// What it was before it was claimed; `nil`: an older program has claimed it.
        var before: DeviceStatus?
    }

    case there(Device)
    /// The device is gone, or is already what it is to become.
    case nothing

    init(_ outputs: [String: String]) throws(StoredDataError) {
        guard let output = outputs[DeviceStep.claimDevice], let value = try? JSONValue(parsing: output) else {
            throw StoredDataError(message: "the output of \(DeviceStep.claimDevice) is missing")
        }
        if value["nothing"]?.bool == true {
            self = .nothing
            return
        }
        guard let creation = value["creation"]?.string.flatMap({ SagaID($0) }) else {
            throw StoredDataError(message: "the output of \(DeviceStep.claimDevice) names no creation")
        }
        var ports: PortPair?
        if let host = value["host"]?.string, let adb = value["adb"]?.integer, let webRTC = value["webrtc"]?.integer {
            ports = PortPair(host: host, adb: adb, webRTC: webRTC)
        }
        self = .there(
            Device(
                creation: creation, made: try MadeDevice(value["made"]), ports: ports,
                before: value["before"]?.string.flatMap { DeviceStatus(name: $0) }))
    }

    /// What the device was before it was claimed, where that is known.
    var before: DeviceStatus? {
        guard case .there(let device) = self else { return nil }
        return device.before
    }

    /// The device that a saga holds; `nil`: it holds none, and has nothing to do.
    static func claim(of context: StepContext) throws(StepError) -> Device? {
        do throws(StoredDataError) {
            switch try ClaimedDevice(context.outputs) {
            case .there(let device): return device
            case .nothing: return nil
            }
        } catch {
            throw StepError(.undecidable, reason: DeviceFailureReason.unreadable, message: error.message)
        }
    }
}
