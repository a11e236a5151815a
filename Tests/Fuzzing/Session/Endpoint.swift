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
    private let reads = ReadGate()

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
        try? channel.pipeline.syncOperations.addHandlers([self.reads, connection])
        channel.connect(to: .init(ipAddress: [127, 0, 0, 1], port: 1), promise: nil)
        self.settle()
    }

    func append(_ bytes: [UInt8]) { self.pending += bytes }

    /// Reads up to `count` bytes, in pieces of at most `piece`. Nothing is read while the connection wants nothing.
    func read(_ count: Int, piece: Int) {
        var bytes = self.pending.prefix(count)
        while !bytes.isEmpty, self.channel.isActive, self.wantsToRead() {
            let part = Array(bytes.prefix(max(1, piece)))
            bytes = bytes.dropFirst(part.count)
            self.pending.removeFirst(part.count)
            self.check.received(part)
            self.channel.pipeline.fireChannelRead(ByteBuffer(bytes: part))
        }
        self.channel.pipeline.fireChannelReadComplete()
        self.settle()
    }

    /// Asks as the socket's channel does ahead of each read.
    private func wantsToRead() -> Bool {
        if !self.reads.isOpen { self.channel.pipeline.read() }
        defer { self.reads.isOpen = false }
        return self.reads.isOpen
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

    /// What must hold between two events, on either side.
    func checkSession(_ broken: inout [String]) {
        guard let session = self.connection.session else { return }
        let unread = session.streams.reduce(0) { $0 + ($1.hasProvider ? $1.outbound.charge : 0) }
        if session.unreadBytes != unread {
            broken.append("\(session.unreadBytes) bytes are charged as unread, but \(unread) wait")
        }
        guard self.isSettled else { return }
        for stream in session.streams where stream.id > 0 && self.check.isOver(UInt32(stream.id)) {
            broken.append("stream \(stream.id) is over, and kept")
        }
        if self.check.connectionDebt > self.check.mostConnectionDebt {
            broken.append("\(self.check.connectionDebt) bytes of the connection are not given back")
        }
    }

    /// All that there is to say was said: neither the socket nor the end of the connection is in the way.
    var isSettled: Bool {
        guard let session = self.connection.session, self.channel.isActive, self.channel.isWritable else {
            return false
        }
        return !self.connection.isClosingDown && !session.wantsWrite && !self.check.isPeerBroken
    }

    /// Something goes wrong with the socket.
    func fail() {
        self.channel.pipeline.fireErrorCaught(IOError(errnoCode: ECONNRESET, reason: "read"))
        self.settle()
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
