import Proto

extension V1 {
    public struct DeviceType: ProtobufEnum {
        /// PHONE.
        public static let unspecified = Self(rawValue: 0)
        public static let phone = Self(rawValue: 1)
        public static let tablet = Self(rawValue: 2)

        public var rawValue: Int32
        public init(rawValue: Int32) { self.rawValue = rawValue }
        public static let prefix = "DEVICE_TYPE_"
        public static let known = values(of: cloudphone__device__v1__device_type__descriptor)
    }

    public struct DeviceStatus: ProtobufEnum {
        public static let unspecified = Self(rawValue: 0)
        public static let creating = Self(rawValue: 1)
        public static let running = Self(rawValue: 2)
        public static let stopped = Self(rawValue: 3)
        public static let error = Self(rawValue: 4)
        /// Being undone or deleted; gone afterwards.
        public static let deleting = Self(rawValue: 5)
        public static let starting = Self(rawValue: 6)
        public static let stopping = Self(rawValue: 7)

        public var rawValue: Int32
        public init(rawValue: Int32) { self.rawValue = rawValue }
        public static let prefix = "DEVICE_STATUS_"
        public static let known = values(of: cloudphone__device__v1__device_status__descriptor)
    }

    public struct Provider: ProtobufEnum {
        /// The server's default provider.
        public static let unspecified = Self(rawValue: 0)
        /// In-process, for trying things out and for fault drills.
        public static let simulated = Self(rawValue: 1)
        /// An Android container on a Docker engine.
        public static let redroid = Self(rawValue: 2)
        /// Huawei Cloud Phone.
        public static let huaweiCPH = Self(rawValue: 3)
        /// Alibaba Elastic Cloud Phone.
        public static let aliyunECP = Self(rawValue: 4)
        /// A pool of real phones.
        public static let physical = Self(rawValue: 5)

        public var rawValue: Int32
        public init(rawValue: Int32) { self.rawValue = rawValue }
        public static let prefix = "PROVIDER_"
        public static let known = values(of: cloudphone__device__v1__provider__descriptor)
    }

    public struct ReturnWhen: ProtobufEnum {
        /// The method's default.
        public static let unspecified = Self(rawValue: 0)
        /// Every step but START_DEVICE is done; it goes on by itself.
        public static let provisioned = Self(rawValue: 1)
        /// The saga is durable, its ports held; nothing outside the database has happened.
        public static let accepted = Self(rawValue: 2)
        /// The saga is over: the device runs, or everything is undone.
        public static let finished = Self(rawValue: 3)

        public var rawValue: Int32
        public init(rawValue: Int32) { self.rawValue = rawValue }
        public static let prefix = "RETURN_WHEN_"
        public static let known = values(of: cloudphone__device__v1__return_when__descriptor)
    }
}
