/// One HTTP/2 frame (RFC 9113, section 4.1), as bytes in and out.
struct Frame {
    enum Kind {
        static let data: UInt8 = 0
        static let headers: UInt8 = 1
        static let priority: UInt8 = 2
        static let reset: UInt8 = 3
        static let settings: UInt8 = 4
        static let pushPromise: UInt8 = 5
        static let ping: UInt8 = 6
        static let goAway: UInt8 = 7
        static let windowUpdate: UInt8 = 8
        static let continuation: UInt8 = 9
    }

    enum Flag {
        static let endStream: UInt8 = 1
        static let acknowledgement: UInt8 = 1
        static let endHeaders: UInt8 = 4
        static let padded: UInt8 = 8
        static let priority: UInt8 = 0x20
    }

    static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
    static let largestPayload = 16384

    /// What the first nine bytes say.
    struct Header {
        var length: Int
        var kind: UInt8
        var flags: UInt8
        var stream: UInt32

        init(_ bytes: ArraySlice<UInt8>) {
            let numbers = bytes.map { UInt32($0) }
            self.length = Int(numbers[0] << 16 | numbers[1] << 8 | numbers[2])
            self.kind = UInt8(numbers[3])
            self.flags = UInt8(numbers[4])
            self.stream = (numbers[5] << 24 | numbers[6] << 16 | numbers[7] << 8 | numbers[8]) & 0x7FFF_FFFF
        }
    }

    var kind: UInt8
    var flags: UInt8 = 0
    var stream: UInt32 = 0
    var payload: [UInt8] = []

    var bytes: [UInt8] {
        let length = UInt32(self.payload.count)
        return Self.bigEndian(length).dropFirst() + [self.kind, self.flags] + Self.bigEndian(self.stream) + self.payload
    }

    static func bigEndian(_ value: UInt32) -> [UInt8] {
        [UInt8(value >> 24), UInt8(value >> 16 & 0xFF), UInt8(value >> 8 & 0xFF), UInt8(value & 0xFF)]
    }

    /// A field of a header block, literal and not indexed (RFC 7541, section 6.2.2); texts of up to 126 bytes.
    static func field(_ name: [UInt8], _ value: [UInt8], indexed: Bool = false) -> [UInt8] {
        let name = name.prefix(126)
        let value = value.prefix(126)
        return [indexed ? 0x40 : 0, UInt8(name.count)] + name + [UInt8(value.count)] + value
    }

    static func field(_ name: String, _ value: String, indexed: Bool = false) -> [UInt8] {
        Self.field(Array(name.utf8), Array(value.utf8), indexed: indexed)
    }

    var number: UInt32 {
        guard self.payload.count >= 4 else { return 0 }
        return self.payload[..<4].reduce(0) { $0 << 8 | UInt32($1) }
    }
}

/// Cuts bytes into frames.
struct FrameParser {
    private var rest: [UInt8] = []
    /// The header of the frame that `rest` begins with was given.
    private var hasBegun = false
    private(set) var isBroken = false
    /// A client's preface is still to come.
    var expectsPreface = false

    /// Bytes of a frame that isn't whole.
    var leftOver: Int { self.rest.count }

    /// Bytes that the frame which has begun is still to bring.
    var missing: Int { self.hasBegun ? 9 + Frame.Header(self.rest.prefix(9)).length - self.rest.count : 0 }

    /// Gives each frame twice: when its header has come, and when all of it has.
    mutating func parse(_ bytes: [UInt8], begun: (Frame.Header) -> Void, whole: (Frame) -> Void) {
        guard !self.isBroken else { return }
        self.rest += bytes
        var position = 0
        if self.expectsPreface {
            guard self.rest.count >= Frame.preface.count else { return }
            guard self.rest.starts(with: Frame.preface) else {
                self.isBroken = true
                return
            }
            self.expectsPreface = false
            position = Frame.preface.count
        }
        while self.rest.count - position >= 9 {
            let header = Frame.Header(self.rest[position..<position + 9])
            guard header.length <= Frame.largestPayload else {
                self.isBroken = true
                return
            }
            if !self.hasBegun { begun(header) }
            self.hasBegun = true
            let end = position + 9 + header.length
            guard self.rest.count >= end else { break }
            whole(
                Frame(
                    kind: header.kind, flags: header.flags, stream: header.stream,
                    payload: Array(self.rest[(position + 9)..<end])))
            self.hasBegun = false
            position = end
        }
        self.rest.removeFirst(position)
    }
}
