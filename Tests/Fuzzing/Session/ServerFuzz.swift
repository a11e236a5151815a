import Logging
import NIOCore
import NIOEmbedded

@testable import RPCTransport

/// A server's connection under attack.
enum ServerFuzz {
    private final class Observer: RPCObserver {
        nonisolated(unsafe) var open = 0  // one thread runs it all

        func callStarted(method: String) { self.open += 1 }
        func callEnded(method: String, code: RPCCode, duration: Duration) { self.open -= 1 }
    }

    private struct Yielding: RPCInterceptor {
        func intercept(_ context: inout RPCContext) async throws {
            // Not `Task.yield`, which goes on on another thread.
            if context.metadata.first("x-yield") != nil { await Task {}.value }
        }

        func interceptAtOnce(_ context: inout RPCContext) -> Bool { context.metadata.first("x-yield") == nil }
    }

    static func run(
        _ source: ByteSource, _ tasks: SerialTasks, _ channel: EmbeddedChannel, _ eventLoop: HarnessEventLoop,
        _ made: (HTTP2Connection) -> Void
    ) -> [String] {
        var source = source
        let gate = Gate()
        let observer = Observer()
        let (choice, opening) = (source.byte(), source.byte())
        let configuration = Self.configuration(choice, opening)
        let logger = Logger(label: "fuzz", factory: { _ in SwiftLogNoOpLogHandler() })
        let shared = ServerShared(
            configuration: configuration, http2: configuration.http2,
            router: Router(services: [FuzzService.make(gate)]),
            interceptors: [Yielding()], observer: observer,
            logger: logger, refusals: RefusalReporter(observer: observer, logger: logger),
            connectionEstablished: { _ in }, connectionClosed: { _ in })
        let loop = EventLoopContext(eventLoop: eventLoop)
        let connection = ServerConnection(loop: loop, shared: shared)
        made(connection)
        let check = WireCheck(
            isServer: true, streamWindow: configuration.streamWindowBytes,
            connectionWindow: configuration.connectionWindowBytes)
        let endpoint = Endpoint(channel, eventLoop, connection, tasks, gate, check)
        var peer = PeerFrames(firstStream: 1)
        let endsInOrder = opening & 16 == 0
        if opening & 15 != 0 {
            endpoint.append(Frame.preface + Frame(kind: Frame.Kind.settings).bytes)
        }
        var broken: [String] = []
        while !source.isEmpty, channel.isActive {
            switch source.byte() % 16 {
            case 0, 1, 2, 3: endpoint.append(peer.request(&source))
            case 4, 5, 6, 7: endpoint.append(peer.other(&source))
            case 8, 9: endpoint.read(.max, piece: .max)
            case 10: endpoint.read(Int(source.byte()) * 16, piece: 1 + Int(source.byte()))
            case 11:
                let choice = Int(source.byte())
                gate.release(choice >> 2, failing: choice & 3 == 0 ? RPCError(.aborted, "as told") : nil)
                endpoint.settle()
            case 12:
                tasks.runDue()
                endpoint.settle()
            case 13: endpoint.setWritable(source.byte() & 1 == 0)
            case 14:
                Self.letTimePass(Int(source.byte()), connection, loop)
                endpoint.settle()
            default:
                switch source.byte() {
                case ..<64: connection.beginDrain()
                case 0xF0...: endpoint.fail()
                default: break
                }
                endpoint.settle()
            }
            endpoint.checkSession(&broken)
            Self.checkBounds(connection, endpoint, &broken)
        }
        // Half of the inputs lose the connection as it is then.
        if endsInOrder {
            endpoint.setWritable(true)
            endpoint.read(.max, piece: .max)
        }
        if !endpoint.finish(until: { observer.open == 0 && gate.running == 0 }) {
            broken.append("tasks go on after the connection's end")
        }
        if gate.running != 0 { broken.append("\(gate.running) handlers never returned") }
        if observer.open != 0 { broken.append("\(observer.open) calls never ended") }
        if connection.session != nil { broken.append("the session outlives the connection") }
        endpoint.check.ended()
        return broken + endpoint.check.broken
    }

    private static func configuration(_ choice: UInt8, _ opening: UInt8) -> RPCServerConfiguration {
        var configuration = RPCServerConfiguration()
        configuration.maximumMessageBytes = choice & 1 == 0 ? 50_000 : 64
        configuration.streamWindowBytes = choice & 2 == 0 ? 65535 : 100_000
        configuration.connectionWindowBytes = choice & 4 == 0 ? 65535 : 1 << 20
        configuration.streamOutboundBytes = choice & 8 == 0 ? 65536 : 1024
        configuration.maximumRunningHandlers = choice & 16 == 0 ? 100 : 3
        configuration.maximumConcurrentStreams = choice & 32 == 0 ? 100 : 2
        configuration.maximumUnaryTimeout = choice & 64 == 0 ? nil : .seconds(1)
        configuration.maximumHeaderListBytes = choice & 128 == 0 ? 16384 : 512
        if choice & 6 == 6 { configuration.limits.maximumUnreadBytes = 50_000 }
        if choice & 10 == 10 { configuration.limits.maximumBufferedRequestBytes = 100 }
        // What is on by default only in part, and costs most: a reply is compressed if the client may have it so.
        configuration.compressedResponseBytes = choice & 3 == 3 ? 100 : nil
        configuration.maximumConnectionIdle = choice & 5 == 5 ? .seconds(5) : nil
        configuration.maximumConnectionAge = choice & 9 == 9 ? .seconds(20) : nil
        if opening & 32 != 0 {
            // Time that an input can let pass is half a minute.
            configuration.writeTimeout = .seconds(5)
            configuration.limits.requestTimeout = .seconds(5)
            configuration.limits.stalledStreamTimeout = .seconds(10)
        }
        if opening & 64 != 0 {
            let few = RPCLimits.Rate(burst: 4, perSecond: 1)
            configuration.limits.resets = few
            configuration.limits.unansweredResets = few
            configuration.limits.errors = few
            configuration.limits.controlFrames = few
            configuration.limits.maximumQueuedFrames = 8
            configuration.limits.maximumUnsentAcknowledgements = 4
            configuration.limits.maximumKeptBytes = 1000
            configuration.limits.maximumUnreadBytes = 1000
        }
        // At once, since no time passes between what is read.
        if opening & 128 != 0 { configuration.keepaliveInterval = .zero }
        return configuration
    }

    /// The connection's timer, or the deadline of a call, comes `choice` times a quarter of a second too early.
    private static func letTimePass(_ choice: Int, _ connection: ServerConnection, _ loop: EventLoopContext) {
        let now = NIODeadline.now() + .milliseconds(Int64(choice >> 1) * 250)
        guard let session = connection.session else { return }
        let calls = session.streams.compactMap { $0 as? ServerCall }.filter { $0.timerIndex >= 0 }
        if choice & 1 == 0 || calls.isEmpty {
            loop.cancelTimer(connection)
            connection.timerFired(at: now)
        } else {
            let call = calls[(choice >> 1) % calls.count]
            loop.cancelTimer(call)
            call.timerFired(at: now)
        }
    }

    private static func checkBounds(_ connection: ServerConnection, _ endpoint: Endpoint, _ broken: inout [String]) {
        let configuration = connection.shared.configuration
        if connection.runningHandlers > configuration.maximumRunningHandlers {
            broken.append("\(connection.runningHandlers) handlers run")
        }
        let running = endpoint.gate.running
        if running > connection.runningHandlers {
            broken.append("\(running) handlers run, but the connection knows of \(connection.runningHandlers)")
        }
        guard let session = connection.session else { return }
        let calls = session.streams.compactMap { $0 as? ServerCall }
        let buffered = calls.reduce(0) { $0 + $1.bufferedBytes }
        if connection.bufferedBytes != buffered {
            broken.append("\(connection.bufferedBytes) bytes of requests, but \(buffered) are kept")
        }
        let untaken = calls.reduce(0) { $0 + $1.waitingBytes }
        if connection.waitingBytes != untaken {
            broken.append("\(connection.waitingBytes) bytes for streams' handlers, but \(untaken) wait")
        }
        let waiting = calls.filter(\.waitsForCredit).map(\.id)
        if waiting.sorted() != connection.withoutCredit.map(\.id).sorted() {
            broken.append("\(waiting) wait for credit, but not in their queue")
        }
        if !waiting.isEmpty, connection.favoured?.bufferedBytes ?? 0 == 0 {
            broken.append("\(waiting) wait for credit, and nobody has it")
        }
        // A writer waits once it is past the limit, so one message may be beyond it.
        let limit = configuration.streamOutboundBytes + FuzzService.largestMessage + 5
        for stream in session.streams where stream.outbound.byteCount > limit {
            broken.append("\(stream.outbound.byteCount) bytes wait on stream \(stream.id)")
        }
        // Refused ones are known until their RST_STREAM is sent.
        if session.streams.count > configuration.maximumConcurrentStreams + 1000 {
            broken.append("\(session.streams.count) streams")
        }
        guard endpoint.isSettled else { return }
        for call in calls where call.machine?.isResponseEnded == false && !call.isRemoteEnded {
            let debt = endpoint.check.debt(of: UInt32(call.id)) - call.waitingBytes - call.withheldCredit
            if debt > endpoint.check.mostStreamDebt {
                broken.append("stream \(call.id) waits for \(debt) bytes of credit")
            }
        }
    }
}
