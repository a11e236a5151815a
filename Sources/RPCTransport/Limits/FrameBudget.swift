import NIOCore

/// How much of what costs us more than the peer is put up with on one connection. It doesn't know nghttp2: frames and
/// mistakes come in, and once a budget is used up, `violation` says which.
///
/// - Control frames: all but RST_STREAM (which has its own budget), and HEADERS and DATA that are of use. What a gRPC
///   peer does in good order earns more than it spends: WINDOW_UPDATEs and PINGs answer frames of ours. A header block
///   that nghttp2 decodes and drops (on a closed stream, past the stream limit) counts by its size.
/// - Resets by the peer, and early resets of calls that had no answer yet (rapid reset, CVE-2023-44487).
/// - Errors: what makes us reset a stream, invalid frames above all (MadeYouReset, CVE-2025-8671).
struct FrameBudget {
    struct Configuration: Sendable {
        var controlFrames = TokenBucket.Rate(burst: 2000, perSecond: 500)
        var resets = TokenBucket.Rate(burst: 10000, perSecond: 1000)
        var unansweredResets = TokenBucket.Rate(burst: 2000, perSecond: 200)
        var errors = TokenBucket.Rate(burst: 500, perSecond: 50)
    }

    /// Frames of the peer that one frame of ours answers for: WINDOW_UPDATE for stream and connection, a PING.
    private static let earnedBySending = 3.0
    /// DATA of ours below this earns nothing unless it is a stream's last: a peer that opens its window by single
    /// bytes asks for it.
    private static let worthwhileBytes = 1024
    /// A call that was reset later than this was not opened in order to be reset.
    private static let patience = TimeAmount.milliseconds(100)
    /// A dropped header block counts one more for so many of its bytes.
    private static let droppedHeaderBytes = 256

    private(set) var violation: RPCRefusal?
    private var controlFrames: TokenBucket
    private var resets: TokenBucket
    private var unansweredResets: TokenBucket
    private var errors: TokenBucket
    private var refilled: NIODeadline
    /// What the HEADERS frame that has just begun was charged with.
    private var headersCharge = 0.0

    init(_ configuration: Configuration, now: NIODeadline) {
        self.controlFrames = TokenBucket(configuration.controlFrames)
        self.resets = TokenBucket(configuration.resets)
        self.unansweredResets = TokenBucket(configuration.unansweredResets)
        self.errors = TokenBucket(configuration.errors)
        self.refilled = now
    }

    mutating func refill(at now: NIODeadline) {
        let seconds = Double((now - self.refilled).nanoseconds) / 1e9
        self.refilled = now
        self.controlFrames.refill(seconds: seconds)
        self.resets.refill(seconds: seconds)
        self.unansweredResets.refill(seconds: seconds)
        self.errors.refill(seconds: seconds)
    }

    // MARK: The peer's frames

    enum Frame {
        case data
        case headers(length: Int)
        case continuation(length: Int)
        case reset
        case other
    }

    mutating func received(_ frame: Frame) {
        switch frame {
        case .headers(let length):
            self.headersCharge = Double(1 + length / Self.droppedHeaderBytes)
            self.spendControl(self.headersCharge)
        case .continuation(let length): self.spendControl(Double(1 + length / Self.droppedHeaderBytes))
        case .reset: if !self.resets.spend(1) { self.violate(.tooManyResets) }
        case .data, .other: self.spendControl(1)
        }
    }

    /// The HEADERS frame that has just begun is taken: a request, or trailers.
    mutating func headersAreTaken() { self.controlFrames.earn(self.headersCharge) }

    /// The DATA frame is for a stream that we know, and it carries something or ends the stream.
    mutating func dataIsTaken() { self.controlFrames.earn(1) }

    mutating func error() { if !self.errors.spend(1) { self.violate(.tooManyErrors) } }

    /// The peer reset a call that was under way.
    ///
    /// While we are slow, clients reset whatever reaches its deadline: closing their connections for that would make an
    /// outage worse. A call that has lasted gets its reset back: it kept one of the peer's few streams for so long, and
    /// its handler counts until it returns, so that calls which are answered cost more. A shorter one that has lasted half
    /// of the time that its client gave it counts among all resets only, since the client chooses that time.
    /// - Parameter age: since the call's headers came; zero if they came with the reset.
    mutating func callWasReset(isAnswered: Bool, age: TimeAmount, timeout: TimeAmount?) {
        if age > Self.patience {
            self.resets.earn(1)
        } else if !isAnswered, timeout.map({ age.nanoseconds <= $0.nanoseconds / 2 }) ?? true {
            if !self.unansweredResets.spend(1) { self.violate(.tooManyUnansweredResets) }
        }
    }

    // MARK: Good order

    /// Its reset, if one is on its way (both sides may find it late at the same time), is paid for too.
    mutating func callAnswered() {
        self.unansweredResets.earn(1)
        self.resets.earn(1)
    }

    mutating func sentHeaders() { self.controlFrames.earn(Self.earnedBySending) }

    mutating func sentData(bytes: Int, isLast: Bool) {
        if isLast || bytes >= Self.worthwhileBytes { self.controlFrames.earn(Self.earnedBySending) }
    }

    private mutating func spendControl(_ count: Double) {
        if !self.controlFrames.spend(count) { self.violate(.tooManyControlFrames) }
    }

    private mutating func violate(_ rule: RPCRefusal) { if self.violation == nil { self.violation = rule } }
}
