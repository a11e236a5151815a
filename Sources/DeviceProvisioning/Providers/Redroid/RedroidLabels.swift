import SagaRuntime

/// The labels that every container and volume of ours carries.
///
/// They have a prefix of their own: the service that this one replaces removes containers labelled
/// `com.cloudphone.managed` that it doesn't know.
enum RedroidLabel {
    static let managed = "devicerpc.managed"
    static let provider = "devicerpc.provider"
    static let installation = "devicerpc.installation"
    static let saga = "devicerpc.saga"
    static let generation = "devicerpc.generation"
    static let device = "devicerpc.device"
    static let user = "devicerpc.user"
    static let adbPort = "devicerpc.adb-port"
    static let webRTCPort = "devicerpc.webrtc-port"

    static func labels(installation: String, request: ProviderRequest) -> [String: String] {
        var labels = [
            Self.managed: "true",
            Self.provider: ProviderKind.redroid.name,
            Self.installation: installation,
            Self.saga: request.sagaID.rawValue,
            Self.generation: String(request.generation),
            Self.device: request.deviceID,
            Self.user: Text.sanitised(request.userID, maximumScalars: 200),
        ]
        if let ports = request.ports {
            labels[Self.adbPort] = String(ports.adb)
            labels[Self.webRTCPort] = String(ports.webRTC)
        }
        return labels
    }

    /// Whether something is what this installation makes for the saga and generation.
    static func isOurs(
        _ labels: [String: String]?, installation: String, sagaID: SagaID, generation: Int
    ) -> Bool {
        labels?[Self.installation] == installation && labels?[Self.saga] == sagaID.rawValue
            && labels?[Self.generation] == String(generation)
    }
}

/// The names of a device's parts on the engine. A name is what makes create unique by key: an engine has it once.
struct RedroidNames: Equatable {
    let container: String

    /// In Docker's charset `[a-zA-Z0-9][a-zA-Z0-9_.-]+`: a saga id is made of `[a-z0-9_]`.
    init(sagaID: SagaID, generation: Int) {
        self.container = "devicerpc-\(sagaID.rawValue)-g\(generation)"
    }

    private init(container: String) { self.container = container }

    /// From a stored device; `nil` if it is not named by us. What comes from a row is checked again, since it ends up
    /// in the path of a request.
    init?(of device: ProviderDevice) {
        guard let name = device.attributes[Self.attribute] else { return nil }
        self.init(container: name)
        guard name.hasPrefix("devicerpc-"), name.utf8.count <= 128, Self.isPlain(name) else { return nil }
    }

    /// Only characters of Docker's names.
    static func isPlain(_ text: String) -> Bool {
        text.utf8.allSatisfy {
            (48...57).contains($0) || (65...90).contains($0) || (97...122).contains($0) || "_.-".utf8.contains($0)
        }
    }

    var volume: String { "\(self.container)-data" }

    /// The key of `ProviderDevice.attributes` that holds the container's name.
    static let attribute = "container"
}
