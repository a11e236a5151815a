import Glibc
import NIOCore
import NIOEmbedded

@testable import RPCTransport

/// Our side of a connection, on a channel in memory and an event loop that runs when it is told to.
final class Endpoint {
    let channel: EmbeddedChannel
    private let loop: HarnessEventLoop
    let tasks: SerialTasks
    let gate: Gate
    var check: WireCheck
    private let connection: HTTP2Connection
    /// What the peer has "sent" and we have not read.
    private var pending: [UInt8] = []

    init(
        _ channel: EmbeddedChannel, _ loop: HarnessEventLoop, _ connection: HTTP2Connection, _ tasks: SerialTasks,
        _ gate: Gate, _ check: WireCheck
    ) {
        self.channel = channel
        self.loop = loop
        self.connection = connection
        self.tasks = tasks
        self.gate = gate
        self.check = check
        try? channel.pipeline.syncOperations.addHandler(connection)
        channel.connect(to: .init(ipAddress: [127, 0, 0, 1], port: 1), promise: nil)
        self.settle()
    }

    func append(_ bytes: [UInt8]) { self.pending += bytes }

    /// Reads up to `count` bytes, in pieces of at most `piece`. Nothing is read while the peer takes no bytes.
    func read(_ count: Int, piece: Int) {
        var bytes = self.pending.prefix(count)
        while !bytes.isEmpty, self.channel.isActive, self.channel.isWritable {
            let part = Array(bytes.prefix(max(1, piece)))
            bytes = bytes.dropFirst(part.count)
            self.pending.removeFirst(part.count)
            self.check.received(part)
            self.channel.pipeline.fireChannelRead(ByteBuffer(bytes: part))
        }
        self.channel.pipeline.fireChannelReadComplete()
        self.settle()
    }

    func setWritable(_ isWritable: Bool) {
        guard self.channel.isWritable != isWritable else { return }
        self.channel.isWritable = isWritable
        self.channel.pipeline.fireChannelWritabilityChanged()
        self.settle()
    }

    /// Runs the event loop and looks at what was sent.
    func settle() {
        self.loop.run()
        while let buffer = try? self.channel.readOutbound(as: ByteBuffer.self) {
            self.check.sent(Array(buffer.readableBytesView))
        }
    }

    /// Runs the tasks until each of them is over or waits for something.
    func runTasks() {
        while !self.tasks.isIdle {
            self.tasks.runDue()
            self.settle()
        }
    }

    /// Closes the connection and runs everything to its end; false if something goes on for ever.
    ///
    /// A handler may begin after its call is over: what comes ahead of it (an interceptor, inflating) may be on another
    /// thread by then. Only the connection knows of it already, and until it returns.
    func finish(until isOver: () -> Bool) -> Bool {
        if self.channel.isActive { self.channel.close(promise: nil) }
        self.settle()
        self.gate.open()
        return Self.eventually {
            self.tasks.runDue()
            self.settle()
            return isOver() && self.tasks.isIdle && !self.hasHandlers
        }
    }

    private var hasHandlers: Bool { ((self.connection as? ServerConnection)?.runningHandlers ?? 0) > 0 }

    /// Asks again and again, at first without waiting: mostly nothing is on another thread. False after ten seconds.
    static func eventually(_ condition: () -> Bool) -> Bool {
        for attempt in 0..<20_000 {
            if condition() { return true }
            if attempt > 1000 { usleep(500) }
        }
        return condition()
    }
}

extension SocketAddress {
    fileprivate init(ipAddress bytes: [UInt8], port: Int) {
        do {
            try self.init(packedIPAddress: ByteBuffer(bytes: bytes), port: port)
        } catch {
            preconditionFailure("four bytes are an address: \(error)")
        }
    }
}
