import NIOCore
import NIOEmbedded
import Synchronization
import Testing

@testable import Fuzzing
@testable import RPCTransport

/// A connection whose client stopped reading is freed once it is lost, whatever of its calls it had to keep until then.
@Suite struct LostConnectionTests {
    /// A client that doesn't read its answers has its next requests held back. Such a request used to stay where it was
    /// held when its stream was reset or its connection lost: resets and new requests piled up messages without bound,
    /// and the connection was never freed.
    @Test func heldBackCallsEndWithTheirStreams() async {
        await Self.isFreed { endpoint, connection in
            // More than the client's window has room for: it waits.
            endpoint.append(ServedConnection.request("/f.F/Large", on: 1))
            endpoint.read(.max, piece: .max)
            endpoint.runTasks()
            #expect((connection.session?.unreadBytes ?? 0) > 1000)
            endpoint.append(ServedConnection.request("/f.F/Echo", on: 3))
            endpoint.read(.max, piece: .max)
            #expect(connection.heldBack.map(\.0.id) == [3])
            endpoint.append(
                Frame(kind: Frame.Kind.reset, stream: 3, payload: Frame.bigEndian(8)).bytes
                    + ServedConnection.request("/f.F/Echo", on: 5))
            endpoint.read(.max, piece: .max)
            #expect(connection.heldBack.map(\.0.id) == [5])
        }
    }

    /// What a handler writes on the event loop waits for the next flush, which doesn't come while the socket is full.
    /// When the connection was lost then, the calls that waited and the connection held each other.
    @Test func callsThatWaitToBeFlushedLetGo() async {
        await Self.isFreed { endpoint, _ in
            endpoint.append(ServedConnection.request("/f.F/Watch", on: 1))
            endpoint.read(.max, piece: .max)
            endpoint.setWritable(false)
            endpoint.gate.release(0, failing: nil)
            endpoint.runTasks()
        }
    }

    /// A drain that is over when its timer fires, while the socket is full, closes the connection there and then. The
    /// timer was set once more behind that, and held the connection until it fired, up to a minute later.
    @Test func theEndOfADrainSetsNoTimer() async {
        await Self.isFreed { endpoint, connection in
            endpoint.read(.max, piece: .max)
            endpoint.setWritable(false)
            connection.beginDrain()
            connection.loop.cancelTimer(connection)
            connection.timerFired(at: .now() + .seconds(6))
            // The client has until the end of the drain to take what waits for it.
            #expect(connection.session != nil)
            connection.loop.cancelTimer(connection)
            connection.timerFired(at: .now() + .seconds(60))
            #expect(connection.session == nil)
            #expect(connection.timerIndex < 0)
        }
    }

    /// A message that can't be inflated ends its pipe, which kept the way to give back credit, and by that its call and
    /// the connection.
    @Test func messagesThatDoNotInflateLetGo() async {
        await Self.isFreed { endpoint, _ in
            endpoint.append(
                ServedConnection.headers("/f.F/Chat", on: 1, Frame.field("grpc-encoding", "gzip"))
                    + Frame(kind: Frame.Kind.data, stream: 1, payload: [1, 0, 0, 0, 2, 0x41, 0x41]).bytes)
            endpoint.read(.max, piece: .max)
            endpoint.runTasks()
        }
    }

    /// Requests that are not whole and take too much memory: one call at a time gets credit, and however calls end, each
    /// byte and each reference is let go of once.
    @Test func callsThatWaitForCreditLetGo() async {
        await Self.isFreed { endpoint, connection in
            func expect(_ bytes: Int, favoured: Int32?, waiting: [Int32]) {
                #expect(connection.bufferedBytes == bytes)
                #expect(connection.favoured?.id == favoured)
                #expect(connection.withoutCredit.map(\.id) == waiting)
            }
            func reset(_ stream: UInt32) {
                endpoint.append(Frame(kind: Frame.Kind.reset, stream: stream, payload: Frame.bigEndian(8)).bytes)
                endpoint.read(.max, piece: .max)
            }
            // A message of 1000 bytes, but for the last of them.
            let part = [0, 0, 0, 0x03, 0xE8] + [UInt8](repeating: 7, count: 995)
            for stream: UInt32 in [1, 3, 5, 7, 9] {
                endpoint.append(
                    ServedConnection.headers("/f.F/Echo", on: stream)
                        + Frame(kind: Frame.Kind.data, stream: stream, payload: part).bytes)
            }
            endpoint.read(.max, piece: .max)
            expect(5000, favoured: 5, waiting: [7, 9])
            // Waiting costs nothing; the favoured call has its time, and the next one has all of it once it is its turn.
            for stream in connection.session?.streams ?? [] {
                let call = stream as? ServerCall
                #expect(call?.waitsForCredit == [7, 9].contains(stream.id))
            }
            reset(7)
            expect(4000, favoured: 5, waiting: [9])
            reset(5)
            expect(3000, favoured: 9, waiting: [])
            endpoint.append(
                Frame(
                    kind: Frame.Kind.data, flags: Frame.Flag.endStream, stream: 9, payload: [7, 7, 7, 7, 7]
                ).bytes)
            endpoint.read(.max, piece: .max)
            endpoint.runTasks()
            expect(2000, favoured: nil, waiting: [])
        }
    }

    /// A channel that is closed before it was active has no session, and its end was never told: the server waited for
    /// it for ever when it shut down.
    @Test func connectionsThatNeverBeganAreTold() async {
        await onThread {
            let closed = Mutex(0)
            let loop = EmbeddedChannel()
            let shared = ServedConnection.shared(RPCServerConfiguration(), Gate()) { _ in closed.withLock { $0 += 1 } }
            let connection = ServerConnection(
                loop: EventLoopContext(eventLoop: HarnessEventLoop(loop.embeddedEventLoop)), shared: shared)
            try? loop.pipeline.syncOperations.addHandler(connection)
            #expect(connection.session == nil)
            loop.close(promise: nil)
            loop.embeddedEventLoop.run()
            #expect(connection.context == nil)
            #expect(closed.withLock { $0 } == 1)
        }
    }

    /// Runs the body on a connection that is then lost.
    private static func isFreed(_ body: @escaping @Sendable (Endpoint, ServerConnection) -> Void) async {
        await onThread {
            SerialTasks.with { tasks in
                weak var connection: ServerConnection?
                let channel = EmbeddedChannel()
                let eventLoop = HarnessEventLoop(channel.embeddedEventLoop)
                ServedConnection.run(tasks, channel, eventLoop) {
                    connection = $1
                    body($0, $1)
                }
                #expect(connection == nil)
                if connection == nil { eventLoop.end() }
            }
        }
    }
}
