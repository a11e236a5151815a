import Proto
import SagaRuntime

/// A `google.protobuf.Duration` as it came, which may be out of range; see `CreateDeviceSpecification.sagaTimeout` for
/// the checked one.
public struct ProtobufDuration: Sendable, Hashable {
    public var seconds: Int64
    /// Of the same sign as `seconds`, less than 1,000,000,000.
    public var nanos: Int32

    public init(seconds: Int64, nanos: Int32 = 0) {
        self.seconds = seconds
        self.nanos = nanos
    }

    public init(_ duration: Duration) {
        let (seconds, attoseconds) = duration.components
        self.init(seconds: seconds, nanos: Int32(attoseconds / 1_000_000_000))
    }

    /// `nil` where the fields contradict the type's own rules (google/protobuf/duration.proto).
    public var duration: Duration? {
        guard (-315_576_000_000...315_576_000_000).contains(self.seconds),
            (-999_999_999...999_999_999).contains(self.nanos),
            self.seconds == 0 || self.nanos == 0 || (self.seconds < 0) == (self.nanos < 0)
        else { return nil }
        return .seconds(self.seconds) + .nanoseconds(Int64(self.nanos))
    }

    init?(wire message: UnsafeMutablePointer<Google__Protobuf__Duration>?) {
        guard let message else { return nil }
        self.init(seconds: message.pointee.seconds, nanos: message.pointee.nanos)
    }
}

extension Timestamp {
    /// A `google.protobuf.Timestamp`, cut to microseconds and kept within what they can count.
    init?(wire message: UnsafeMutablePointer<Google__Protobuf__Timestamp>?) {
        guard let message else { return nil }
        let limit: Int64 = 9_000_000_000_000
        let seconds = Swift.max(-limit, Swift.min(message.pointee.seconds, limit))
        self.init(microseconds: seconds * 1_000_000 + Int64(message.pointee.nanos) / 1000)
    }
}

extension MessageArena {
    func timestamp(_ timestamp: Timestamp?) -> UnsafeMutablePointer<Google__Protobuf__Timestamp>? {
        guard let timestamp else { return nil }
        let message = self.allocate(Google__Protobuf__Timestamp.self)
        google__protobuf__timestamp__init(message)
        // Nanoseconds always count forward (google/protobuf/timestamp.proto): round the seconds down.
        var seconds = timestamp.microseconds / 1_000_000
        var microseconds = timestamp.microseconds % 1_000_000
        if microseconds < 0 {
            seconds -= 1
            microseconds += 1_000_000
        }
        message.pointee.seconds = seconds
        message.pointee.nanos = Int32(microseconds * 1000)
        return message
    }

    func duration(_ duration: ProtobufDuration?) -> UnsafeMutablePointer<Google__Protobuf__Duration>? {
        guard let duration else { return nil }
        let message = self.allocate(Google__Protobuf__Duration.self)
        google__protobuf__duration__init(message)
        message.pointee.seconds = duration.seconds
        message.pointee.nanos = duration.nanos
        return message
    }
}
