/// The parts of the Docker engine's JSON that matter here, with its names. Everything read is optional: what an engine
/// answers is never trusted to be complete.
struct DockerMessage: Decodable {
    var message: String?
}

struct DockerInfo: Decodable {
    var ID: String?
}

struct DockerCreateContainer: Encodable {
    struct PortBinding: Codable, Equatable {
        var HostIp: String?
        var HostPort: String?
    }
    struct Empty: Encodable {}
    struct Mount: Encodable {
        struct Driver: Encodable {
            var Name: String
            var Options: [String: String]
        }
        struct VolumeOptions: Encodable {
            var NoCopy: Bool
            var Labels: [String: String]
            var DriverConfig: Driver
        }
        var `Type`: String
        var Source: String
        var Target: String
        var VolumeOptions: VolumeOptions
    }
    struct RestartPolicy: Encodable {
        var Name: String
    }
    struct HostConfig: Encodable {
        var Privileged: Bool
        var UsernsMode: String
        var Memory: Int
        var MemorySwap: Int
        var NanoCpus: Int
        var PortBindings: [String: [PortBinding]]
        var Mounts: [Mount]
        var RestartPolicy: RestartPolicy
    }

    var Image: String
    var Cmd: [String]
    var Labels: [String: String]
    var ExposedPorts: [String: Empty]
    var HostConfig: HostConfig
}

struct DockerCreated: Decodable {
    var Id: String?
}

struct DockerInspected: Decodable {
    struct State: Decodable {
        var Status: String?
        var Running: Bool?
        var Restarting: Bool?
        var ExitCode: Int?
        var OOMKilled: Bool?
    }
    struct Config: Decodable {
        var Labels: [String: String]?
    }
    struct HostConfig: Decodable {
        var PortBindings: [String: [DockerCreateContainer.PortBinding]?]?
    }

    var Id: String?
    var State: State?
    var RestartCount: Int?
    var Config: Config?
    var HostConfig: HostConfig?
}

struct DockerListedContainer: Decodable {
    var Id: String?
    var Names: [String]?
    var State: String?
    var Labels: [String: String]?
}

struct DockerVolumeList: Decodable {
    struct Volume: Decodable {
        var Name: String?
        var Labels: [String: String]?
    }
    var Volumes: [Volume]?
}
