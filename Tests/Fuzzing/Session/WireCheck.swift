/// Watches both directions of a connection for what must hold whatever the peer does: our bytes are HTTP/2 frames, our
/// streams are in the order that the protocol has for them, our gRPC messages are whole, and the credit that we give
/// never exceeds the windows that we announced. It knows as well which streams are over, and what credit is still owed.
struct WireCheck {
    private struct Stream {
        /// Bytes that the peer may still send.
        var credit: Int
        var hasHeaders = false
        var isEnded = false
        /// The peer has said END_STREAM.
        var isRemoteEnded = false
        /// One side or the other has.
        var isReset = false
        /// `:status` 200, so that DATA are messages.
        var isGRPC = false
        /// Of the message under way: bytes of its prefix, and bytes missing.
        var prefix: [UInt8] = []
        var missing = 0
    }

    private(set) var broken: [String] = []
    /// Streams that we reset.
    private(set) var resets: [UInt32] = []
    private let isServer: Bool
    private let streamWindow: Int
    private let connectionWindow: Int
    private var ours = FrameParser()
    private var theirs = FrameParser()
    private var streams: [UInt32: Stream] = [:]
    private var connectionCredit: Int
    private var blockStream: UInt32?
    /// The peer's last HEADERS had END_STREAM.
    private var endsBehindBlock = false

    init(isServer: Bool, streamWindow: Int, connectionWindow: Int) {
        self.isServer = isServer
        self.streamWindow = max(65535, streamWindow)
        self.connectionWindow = max(65535, connectionWindow)
        self.connectionCredit = 65535
        self.ours.expectsPreface = !isServer
        self.theirs.expectsPreface = isServer
    }

    /// What the peer sends is paid for once its frame's header is out: we give credit back for a part of the payload.
    mutating func received(_ bytes: [UInt8]) {
        var begun: [Frame.Header] = []
        var whole: [Frame] = []
        self.theirs.parse(bytes, begun: { begun.append($0) }, whole: { whole.append($0) })
        for frame in begun where frame.kind == Frame.Kind.data {
            self.connectionCredit -= frame.length
            self.streams[frame.stream, default: Stream(credit: self.streamWindow)].credit -= frame.length
        }
        for frame in whole { self.received(frame) }
    }

    private mutating func received(_ frame: Frame) {
        let isEnd = frame.flags & Frame.Flag.endStream != 0
        let isWholeBlock = frame.flags & Frame.Flag.endHeaders != 0
        switch frame.kind {
        case Frame.Kind.data where isEnd: self.streams[frame.stream]?.isRemoteEnded = true
        case Frame.Kind.headers:
            if self.isServer, self.streams[frame.stream] == nil {
                self.streams[frame.stream] = Stream(credit: self.streamWindow)
            }
            self.endsBehindBlock = isEnd
            if isWholeBlock, isEnd { self.streams[frame.stream]?.isRemoteEnded = true }
        case Frame.Kind.continuation where isWholeBlock && self.endsBehindBlock:
            self.streams[frame.stream]?.isRemoteEnded = true
        case Frame.Kind.reset: self.streams[frame.stream]?.isReset = true
        default: break
        }
    }

    // MARK: What must hold once everything that was read has been answered

    /// The peer breaks framing, after which nothing can be said of it.
    var isPeerBroken: Bool { self.theirs.isBroken }

    /// Nobody has anything more to say on the stream.
    func isOver(_ id: UInt32) -> Bool {
        guard let stream = self.streams[id] else { return false }
        return stream.isReset || (stream.isEnded && stream.isRemoteEnded)
    }

    /// Bytes of the connection that were received and are not given back; what a frame is still missing is none of them.
    var connectionDebt: Int { self.connectionWindow - self.connectionCredit - self.theirs.missing }

    /// The same of a stream.
    func debt(of id: UInt32) -> Int {
        self.streams[id].map { self.streamWindow - $0.credit - self.theirs.missing } ?? 0
    }

    /// Credit comes back at the latest when half of a window is used.
    var mostConnectionDebt: Int { self.connectionWindow / 2 }
    var mostStreamDebt: Int { self.streamWindow / 2 }

    mutating func sent(_ bytes: [UInt8]) {
        var frames: [Frame] = []
        self.ours.parse(bytes, begun: { _ in }, whole: { frames.append($0) })
        if self.ours.isBroken { self.broken.append("what was sent is no HTTP/2") }
        for frame in frames { self.sent(frame) }
    }

    mutating func ended() {
        if self.ours.leftOver > 0, !self.ours.expectsPreface { self.broken.append("half a frame was sent") }
    }

    private mutating func sent(_ frame: Frame) {
        if let blockStream {
            guard frame.kind == Frame.Kind.continuation, frame.stream == blockStream else {
                return self.broken.append("a frame of kind \(frame.kind) inside a header block")
            }
            if frame.flags & Frame.Flag.endHeaders != 0 { self.blockStream = nil }
            return
        }
        switch frame.kind {
        case Frame.Kind.headers: self.sentHeaders(frame)
        case Frame.Kind.data: self.sentData(frame)
        case Frame.Kind.reset:
            self.streams[frame.stream, default: Stream(credit: self.streamWindow)].isEnded = true
            self.streams[frame.stream]?.isReset = true
            self.resets.append(frame.stream)
        case Frame.Kind.windowUpdate: self.sentCredit(frame)
        case Frame.Kind.settings, Frame.Kind.ping, Frame.Kind.goAway:
            if frame.stream != 0 { self.broken.append("a frame of kind \(frame.kind) on stream \(frame.stream)") }
        default: self.broken.append("a frame of kind \(frame.kind)")
        }
    }

    private mutating func sentHeaders(_ frame: Frame) {
        if frame.flags & Frame.Flag.endHeaders == 0 { self.blockStream = frame.stream }
        var stream = self.streams[frame.stream, default: Stream(credit: self.streamWindow)]
        defer { self.streams[frame.stream] = stream }
        if stream.isEnded { return self.broken.append("HEADERS on stream \(frame.stream), which is over") }
        let isEnd = frame.flags & Frame.Flag.endStream != 0
        if self.isServer {
            if stream.hasHeaders {
                if !isEnd { self.broken.append("trailers that don't end stream \(frame.stream)") }
                if stream.isGRPC, stream.missing > 0 || !stream.prefix.isEmpty {
                    self.broken.append("trailers in the middle of a message on stream \(frame.stream)")
                }
            } else {
                // nghttp2 writes `:status: 200` as the static table's index 8, behind changes of the table's size.
                stream.isGRPC = frame.payload.first { $0 & 0xE0 != 0x20 } == 0x88
            }
        } else if stream.hasHeaders {
            self.broken.append("a client's second header block")
        } else {
            stream.isGRPC = true
        }
        stream.hasHeaders = true
        stream.isEnded = isEnd
    }

    private mutating func sentData(_ frame: Frame) {
        var stream = self.streams[frame.stream, default: Stream(credit: self.streamWindow)]
        defer { self.streams[frame.stream] = stream }
        if !stream.hasHeaders { self.broken.append("DATA ahead of HEADERS on stream \(frame.stream)") }
        if stream.isEnded { self.broken.append("DATA on stream \(frame.stream), which is over") }
        stream.isEnded = frame.flags & Frame.Flag.endStream != 0
        guard stream.isGRPC else { return }
        var rest = frame.payload[...]
        while !rest.isEmpty {
            if stream.missing > 0 {
                let count = min(stream.missing, rest.count)
                stream.missing -= count
                rest = rest.dropFirst(count)
            } else if let byte = rest.popFirst() {
                stream.prefix.append(byte)
                guard stream.prefix.count == 5 else { continue }
                if stream.prefix[0] > 1 { self.broken.append("a message with flag \(stream.prefix[0])") }
                stream.missing = stream.prefix[1...].reduce(0) { $0 << 8 | Int($1) }
                stream.prefix = []
            }
        }
        if stream.isEnded, stream.missing > 0 || !stream.prefix.isEmpty {
            self.broken.append("stream \(frame.stream) ended in the middle of a message")
        }
    }

    private mutating func sentCredit(_ frame: Frame) {
        if frame.stream == 0 {
            self.connectionCredit += Int(frame.number)
            if self.connectionCredit > self.connectionWindow {
                self.broken.append("\(self.connectionCredit) bytes of credit for the connection")
            }
        } else {
            let credit = self.streams[frame.stream, default: Stream(credit: self.streamWindow)].credit
            self.streams[frame.stream]?.credit = credit + Int(frame.number)
            if credit + Int(frame.number) > self.streamWindow {
                self.broken.append("\(credit + Int(frame.number)) bytes of credit for stream \(frame.stream)")
            }
        }
    }
}
