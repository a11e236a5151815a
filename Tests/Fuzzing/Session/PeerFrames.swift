import NIOCore

@testable import RPCTransport

/// Makes what a peer might send, mostly well-formed: a fuzzer would hardly come upon a whole request by itself.
struct PeerFrames {
    private var nextStream: UInt32
    private var streams: [UInt32] = []

    /// - Parameter firstStream: what the peer's own streams begin with; 1 for a client.
    init(firstStream: UInt32) { self.nextStream = firstStream }

    private static let timeouts = ["0n", "1n", "5u", "100m", "10S", "99999999H", "1", "m", "-1S", "123456789S", "1 S"]
    private static let encodings = ["identity", "gzip", "deflate", "snappy", ""]
    private static let contentTypes = [
        "application/grpc+proto", "application/grpc;x", "application/grpc-web", "application/json", "",
    ]

    /// A stream to speak of: a new one, one of those before, or any.
    private mutating func stream(_ source: inout ByteSource, existing: Bool) -> UInt32 {
        let choice = source.byte()
        if choice == 0xFF { return source.uint32() & 0x7FFF_FFFF }
        if existing, !self.streams.isEmpty { return self.streams[Int(choice) % self.streams.count] }
        if choice == 0xFE { self.nextStream &+= 200 }
        defer {
            self.streams.append(self.nextStream)
            self.nextStream &+= 2
        }
        return self.nextStream & 0x7FFF_FFFF
    }

    mutating func noteStream(_ stream: UInt32) { self.streams.append(stream) }

    /// A request of a client. The flags: 1 ends the stream, 2 has odd fields, 4 cuts the block in pieces, 8 adds a
    /// message and the stream's end, 16 speaks of compression, 32 has the table keep fields, 64 changes the table's size,
    /// 128 adds what is in good order and not in every request.
    mutating func request(_ source: inout ByteSource) -> [UInt8] {
        let flags = source.byte()
        let stream = self.stream(&source, existing: false)
        let isIndexed = flags & 32 != 0
        var block: [UInt8] = []
        if flags & 64 != 0 { block += [0x3F, source.byte()] }  // the table's size
        block += Frame.field(":method", flags & 2 != 0 ? source.choose(["POST", "GET", "PRI"]) : "POST")
        block += Frame.field(":scheme", "http")
        block += Frame.field(":path", FuzzService.path(source.byte()), indexed: isIndexed)
        block += Frame.field(":authority", "f")
        if flags & 2 == 0 {
            block += Frame.field("content-type", "application/grpc", indexed: isIndexed)
            block += Frame.field("te", "trailers", indexed: isIndexed)
            if flags & 16 != 0 {
                block += Frame.field("grpc-encoding", flags & 32 == 0 ? "gzip" : "deflate")
                block += Frame.field("grpc-accept-encoding", "deflate,gzip")
            }
            if flags & 128 != 0 {
                let choice = source.byte()
                if choice & 1 != 0 { block += Frame.field("grpc-timeout", source.choose(Self.timeouts)) }
                if choice & 2 != 0 { block += Frame.field("x-yield", "1") }
                if choice & 4 != 0 { block += Frame.field("grpc-previous-rpc-attempts", "\(choice >> 3)") }
            }
        } else {
            for _ in 0..<(source.byte() % 8) { block += self.oddField(&source) }
        }
        var bytes = self.headers(block, on: stream, isEnd: flags & 1 != 0, isCut: flags & 4 != 0, &source)
        if flags & 8 != 0 {
            bytes += self.message(on: stream, &source, isEnd: true)
        }
        return bytes
    }

    private func oddField(_ source: inout ByteSource) -> [UInt8] {
        switch source.byte() % 12 {
        case 0: Frame.field("grpc-timeout", source.choose(Self.timeouts))
        case 1: Frame.field("grpc-encoding", source.choose(Self.encodings))
        case 2: Frame.field("content-type", source.choose(Self.contentTypes))
        case 3: Frame.field("te", "gzip")
        case 4: Frame.field(Array("x-bin".utf8), source.take(Int(source.byte() % 64)))
        case 5: Frame.field(Array("x-text".utf8), source.take(Int(source.byte() % 64)))
        case 6: [0x80 | source.byte()]  // a field of the tables
        case 7: Frame.field(source.take(Int(source.byte() % 16)), source.take(Int(source.byte() % 16)))
        case 8: Frame.field("grpc-accept-encoding", source.choose(["gzip,deflate", "identity", ",,", "deflate"]))
        case 9: Frame.field("content-type", "application/grpc") + Frame.field("te", "trailers")
        case 10: Frame.field("x-yield", "1")
        default: (0..<source.byte()).reduce(into: []) { block, _ in block += Frame.field("x", "y", indexed: true) }
        }
    }

    private func headers(
        _ block: [UInt8], on stream: UInt32, isEnd: Bool, isCut: Bool, _ source: inout ByteSource
    ) -> [UInt8] {
        let end = isEnd ? Frame.Flag.endStream : 0
        guard isCut else {
            return Frame(
                kind: Frame.Kind.headers, flags: end | Frame.Flag.endHeaders, stream: stream, payload: block
            ).bytes
        }
        var bytes: [UInt8] = []
        var rest = block[...]
        var isFirst = true
        repeat {
            let piece = rest.prefix(1 + Int(source.byte()))
            rest = rest.dropFirst(piece.count)
            let isLast = rest.isEmpty && source.byte() != 0xFF
            bytes +=
                Frame(
                    kind: isFirst ? Frame.Kind.headers : Frame.Kind.continuation,
                    flags: (isFirst ? end : 0) | (isLast ? Frame.Flag.endHeaders : 0), stream: stream,
                    payload: Array(piece)
                ).bytes
            isFirst = false
        } while !rest.isEmpty
        return bytes
    }

    /// A response of a server: headers, trailers, both in one, or something informational.
    mutating func response(_ source: inout ByteSource) -> [UInt8] {
        let flags = source.byte()
        let stream = self.stream(&source, existing: true)
        var block: [UInt8] = []
        if flags & 1 == 0 {
            block += Frame.field(":status", source.choose(["200", "200", "200", "100", "404", "503", "abc", ""]))
            block += Frame.field("content-type", "application/grpc")
        }
        if flags & 2 != 0 {
            block += Frame.field("grpc-status", source.choose(["0", "5", "14", "99", "-1", "x", ""]))
            block += Frame.field(Array("grpc-message".utf8), source.take(Int(source.byte() % 32)))
            block += Frame.field(Array("grpc-status-details-bin".utf8), source.take(Int(source.byte() % 32)))
            block += Frame.field("grpc-retry-pushback-ms", source.choose(["0", "-1", "99999999999999999999", "x"]))
        }
        if flags & 4 != 0 { for _ in 0..<(source.byte() % 4) { block += self.oddField(&source) } }
        return self.headers(block, on: stream, isEnd: flags & 8 != 0, isCut: flags & 16 != 0, &source)
    }

    private mutating func message(on stream: UInt32, _ source: inout ByteSource, isEnd: Bool) -> [UInt8] {
        let length = Int(source.byte())
        // Small ones mostly; now and then one of many kilobytes, or of more than half of a window.
        let large = length == 255 ? 40_000 : length * 64
        var message = length > 250 ? [UInt8](repeating: 0x62, count: large) : source.take(length)
        var flag = source.byte()
        var isCompressed = false
        var count = 1
        switch flag {
        case 240...247:
            // Compressed in truth, and small or a bomb.
            isCompressed = true
            if flag >= 246 { message = [UInt8](repeating: 0, count: 400_000) }
            let compression: RPCCompression = flag & 1 == 0 ? .gzip : .deflate
            if let deflated = Deflater.deflate(ByteBuffer(bytes: message), compression) {
                message = Array(deflated.readableBytesView)
            }
        case 248...: break
        case 232...239: count = Int(flag - 231) * (length < 100 ? 10 : 1)
        default: break
        }
        if flag < 248 { flag = isCompressed ? 1 : 0 }
        message = [flag] + Frame.bigEndian(UInt32(message.count)) + message
        let cut = Int(source.byte())
        if length < 100 {
            // Many small ones, which are kept another way than few.
            message = [[UInt8]](repeating: message, count: count).flatMap { $0 }
            return self.data(message, on: stream, isEnd: isEnd, cut: cut)
        }
        // Some that use up a window together.
        return (1...count).flatMap { self.data(message, on: stream, isEnd: isEnd && $0 == count, cut: cut) }
    }

    private func data(_ payload: [UInt8], on stream: UInt32, isEnd: Bool, cut: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        var rest = payload[...]
        repeat {
            let piece = rest.prefix(cut == 0 ? Frame.largestPayload : max(cut, payload.count / 1000))
            rest = rest.dropFirst(piece.count)
            bytes +=
                Frame(
                    kind: Frame.Kind.data, flags: isEnd && rest.isEmpty ? Frame.Flag.endStream : 0, stream: stream,
                    payload: Array(piece)
                ).bytes
        } while !rest.isEmpty
        return bytes
    }

    /// Any other frame.
    mutating func other(_ source: inout ByteSource) -> [UInt8] {
        switch source.byte() % 16 {
        case 0, 1, 2:
            let stream = self.stream(&source, existing: true)
            return self.message(on: stream, &source, isEnd: source.byte() & 1 != 0)
        case 3:
            let stream = self.stream(&source, existing: true)
            return self.data(
                source.take(Int(source.byte())), on: stream, isEnd: source.byte() & 1 != 0, cut: Int(source.byte()))
        case 4, 5:
            return Frame(
                kind: Frame.Kind.reset, stream: self.stream(&source, existing: true),
                payload: Frame.bigEndian(UInt32(source.byte() % 16))
            ).bytes
        case 6:
            var payload: [UInt8] = []
            for _ in 0..<(source.byte() % 4) {
                payload += [0, source.byte() % 10] + Frame.bigEndian(Self.extreme(&source))
            }
            return Frame(kind: Frame.Kind.settings, payload: payload).bytes
        case 7: return Frame(kind: Frame.Kind.settings, flags: Frame.Flag.acknowledgement).bytes
        case 8, 9:
            let stream = source.byte() & 1 == 0 ? 0 : self.stream(&source, existing: true)
            return Frame(
                kind: Frame.Kind.windowUpdate, stream: stream, payload: Frame.bigEndian(Self.extreme(&source))
            ).bytes
        case 10:
            return Frame(
                kind: Frame.Kind.ping, flags: source.byte() & 1,
                payload: Array((source.take(8) + [UInt8](repeating: 0, count: 8)).prefix(8))
            ).bytes
        case 11:
            var payload = Frame.bigEndian(Self.extreme(&source)) + Frame.bigEndian(UInt32(source.byte() % 16))
            let count = source.byte()
            payload += count < 0xF0 ? source.take(Int(count % 16)) : Array("too_many_pings".utf8)
            return Frame(kind: Frame.Kind.goAway, payload: payload).bytes
        case 12:
            return self.headers(
                source.take(Int(source.byte())), on: self.stream(&source, existing: source.byte() & 1 == 0),
                isEnd: source.byte() & 1 != 0, isCut: source.byte() & 1 != 0, &source)
        case 13:
            // Padded, with a priority, promised: whatever the flags make of the bytes.
            return Frame(
                kind: source.byte() % 12, flags: source.byte(), stream: self.stream(&source, existing: true),
                payload: source.take(Int(source.byte()))
            ).bytes
        case 14:
            return self.headers(
                Frame.field("grpc-status", "0"), on: self.stream(&source, existing: true), isEnd: true, isCut: false,
                &source)
        default: return source.take(Int(source.byte()))  // as they are
        }
    }

    private static func extreme(_ source: inout ByteSource) -> UInt32 {
        let value = source.byte()
        switch value {
        case 0xFF: return .max
        case 0xFE: return 0x7FFF_FFFF
        case 0xFD: return 0x8000_0000
        case 0xFC: return source.uint32()
        case 0x80...: return UInt32(value & 0x7F) << 12
        default: return UInt32(value)
        }
    }
}
