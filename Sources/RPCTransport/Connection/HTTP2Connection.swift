import NIOCore

/// The channel handler of one connection, server's or client's: bytes go into its session, events come out, and what
/// the session wants to send leaves as one buffer and one write per tick.
///
/// `@unchecked Sendable`: everything is touched on the connection's event loop only; other threads hold references
/// and come in through `loop.run`.
class HTTP2Connection: ChannelDuplexHandler, @unchecked Sendable {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = Never
    typealias OutboundOut = ByteBuffer

    /// About how much is put into one write.
    private static let writeSize = 256 * 1024

    /// How many such writes a connection has in its turn of the event loop: enough for a message of 1 MiB.
    private static let writesInTurn = 5

    /// How much is read from a peer that has been told that this is the end.
    private static let mostDiscarded = 256 * 1024

    /// How long a closed connection waits for the peer to close its side.
    private static let lingerTime = TimeAmount.seconds(1)

    /// How long a peer that has done nothing wrong may take for the last bytes, which are few by then.
    private static let timeForTheRest = TimeAmount.seconds(20)

    final let loop: EventLoopContext
    private let role: HTTP2Session.Role
    private let configuration: HTTP2Configuration

    @exclusivity(unchecked) private(set) final var context: ChannelHandlerContext?
    @exclusivity(unchecked) private(set) final var session: HTTP2Session?
    @exclusivity(unchecked) private(set) final var lastRead = NIODeadline.now()
    /// Something has been read.
    @exclusivity(unchecked) private(set) final var hasRead = false
    /// How much is read in the next turn.
    @exclusivity(unchecked) private(set) final var readSize = ReadSize()
    /// Since when the peer takes no bytes.
    @exclusivity(unchecked) private(set) final var unwritableSince: NIODeadline?
    /// What was written and the socket hasn't taken, at most; in bytes.
    @exclusivity(unchecked) private(set) final var unwrittenBytes = 0
    /// What went wrong with the connection, if something did.
    private(set) final var failure: (any Error)?
    @exclusivity(unchecked) private final var isReading = false
    @exclusivity(unchecked) private final var isFlushing = false
    @exclusivity(unchecked) private final var isUnflushed = false
    /// It has written enough for its turn, and goes on in the next.
    @exclusivity(unchecked) private final var isPutOff = false
    @exclusivity(unchecked) private final var wantsToRead = false
    @exclusivity(unchecked) private final var closesWhenFlushed = false
    @exclusivity(unchecked) private final var isClosing = false
    @exclusivity(unchecked) private final var discardedBytes = 0
    /// The channel was active, for however short a time.
    private(set) final var hasBegun = false
    private final var isTornDown = false
    /// The peer has done nothing wrong, and may take its time for the end of its last answers.
    @exclusivity(unchecked) final var isPatient = false

    /// The connection has said its last word, or is about to.
    final var isClosingDown: Bool { self.closesWhenFlushed }

    /// Whether the socket takes bytes. While it doesn't, answers wait for the peer, and closing would drop them.
    final var isWritable: Bool { self.context?.channel.isWritable ?? true }

    init(loop: EventLoopContext, role: HTTP2Session.Role, configuration: HTTP2Configuration) {
        self.loop = loop
        self.role = role
        self.configuration = configuration
    }

    // MARK: For subclasses

    func makeStream(_ id: Int32) -> HTTP2Stream { HTTP2Stream(id: id) }

    /// The connection is up, its session made.
    func connected() {}

    /// An event of the session; `buffer` is what its data lies in.
    func handle(_ event: consuming HTTP2Event, in buffer: ByteBuffer) {}

    /// Called after a read's events, and after each flush: HEADERS and DATA may have gone out.
    func afterEvents() {}

    /// The connection is about to be flushed: what waits may be submitted now.
    func beforeFlush() {}

    /// Messages of the stream have left that were charged so much.
    func streamProgressed(_ stream: HTTP2Stream, _ charge: Int) {}

    /// The socket takes nothing more for now.
    func becameUnwritable() {}

    /// The session cannot go on: what it still has to say (GOAWAY) is written, and the connection closed.
    func failed(_ error: HTTP2SessionError) { self.close() }

    /// The connection is about to be closed: nothing new may begin on it. May be called twice.
    func willClose() {}

    /// The connection is gone, or will never be: the channel was closed before it was active. All streams have been
    /// closed before. Called once.
    func disconnected() {}

    // MARK: Channel

    final func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        if context.channel.isActive { self.start() }
    }

    final func channelActive(context: ChannelHandlerContext) {
        self.start()
        context.fireChannelActive()
    }

    private func start() {
        guard !self.hasBegun, !self.isTornDown else { return }
        self.hasBegun = true
        self.lastRead = .now()
        self.session = HTTP2Session(
            role: self.role, configuration: self.configuration, store: self.loop.events
        ) { [unowned self] id in self.makeStream(id) }
        self.connected()
        self.setNeedsFlush()
    }

    final func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let buffer = self.unwrapInboundIn(data)
        self.hasRead = true
        defer { self.loop.returnReadBuffer(buffer) }
        guard let session = self.session, !self.closesWhenFlushed else {
            self.discardedBytes += buffer.readableBytes
            return
        }
        self.isReading = true
        self.isUnflushed = true
        self.lastRead = .now()
        do throws(HTTP2SessionError) {
            try session.receive(buffer, at: self.lastRead)
        } catch {
            self.process(session, buffer)
            return self.failed(error)
        }
        self.process(session, buffer)
        self.readSize.hasRead(buffer.readableBytes, work: session.receivedWork)
    }

    final func channelReadComplete(context: ChannelHandlerContext) {
        self.isReading = false
        self.flushIfNeeded()
    }

    /// While the peer doesn't take what is written, nothing more is read from it. What is being closed is read only so
    /// that the peer's last bytes don't turn into a RST, and not for as long as it likes to send.
    final func read(context: ChannelHandlerContext) {
        guard self.discardedBytes < Self.mostDiscarded else { return }
        if context.channel.isWritable {
            context.read()
        } else {
            self.wantsToRead = true
        }
    }

    final func channelWritabilityChanged(context: ChannelHandlerContext) {
        guard context.channel.isWritable else {
            self.unwritableSince = .now()
            self.becameUnwritable()
            return
        }
        self.unwritableSince = nil
        self.unwrittenBytes = 0
        self.isUnflushed = true
        self.flushIfNeeded()
        if self.wantsToRead, context.channel.isWritable {
            self.wantsToRead = false
            context.read()
        }
    }

    final func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if self.failure == nil { self.failure = error }
        context.close(promise: nil)
    }

    final func channelInactive(context: ChannelHandlerContext) { self.tearDown() }

    final func handlerRemoved(context: ChannelHandlerContext) {
        self.tearDown()
        self.context = nil
    }

    private func tearDown() {
        guard !self.isTornDown else { return }
        self.isTornDown = true
        if let session = self.session {
            self.session = nil
            session.closeAllStreams(errorCode: HTTP2ErrorCode.cancel)
            session.forEachEvent { self.handle($0, in: ByteBuffer()) }
        }
        self.disconnected()
    }

    // MARK: Events

    private func process(_ session: HTTP2Session, _ buffer: ByteBuffer) {
        session.forEachEvent { self.handle($0, in: buffer) }
        self.afterEvents()
    }

    /// Closes once what the session has to say has been handed to the socket; at once if that takes nothing.
    final func close() {
        guard !self.closesWhenFlushed else { return }
        self.closesWhenFlushed = true
        self.willClose()
        if self.context?.channel.isWritable == false {
            self.context?.close(promise: nil)
            return
        }
        self.isReading = false
        self.setNeedsFlush()
    }

    // MARK: Flushing

    /// Something was submitted to the session: it leaves at the end of this tick.
    final func setNeedsFlush() {
        guard !self.isUnflushed else { return }
        self.isUnflushed = true
        if !self.isReading, !self.isFlushing { self.loop.flushLater(self) }
    }

    final func flushIfNeeded() {
        guard self.isUnflushed, !self.isFlushing, !self.isReading, !self.isPutOff, let context = self.context
        else { return }
        self.isFlushing = true
        defer { self.isFlushing = false }
        var writesLeft = Self.writesInTurn
        while self.isUnflushed, let session = self.session, context.channel.isWritable {
            self.isUnflushed = false
            self.beforeFlush()
            let isFull: Bool
            do throws(HTTP2SessionError) {
                isFull = try self.write(session, context)
            } catch {
                context.close(promise: nil)
                return
            }
            session.forEachProgress { self.streamProgressed($0, $1) }
            session.forEachEvent { self.handle($0, in: ByteBuffer()) }
            self.afterEvents()
            guard isFull else { continue }
            self.isUnflushed = true
            writesLeft -= 1
            if writesLeft == 0 {
                return self.putOffFlush(context)
            }
        }
        // Who is to go and doesn't even take the GOAWAY goes without it.
        if self.closesWhenFlushed, !context.channel.isWritable { return context.close(promise: nil) }
        guard let session = self.session, !self.isUnflushed else { return }
        // Without calls a session that said goodbye wants nothing more, but their answers may be on their way still.
        let isOver = !session.wantsRead && !session.wantsWrite && context.channel.isWritable
        if self.closesWhenFlushed || isOver { self.closeBehindWrites(context) }
    }

    private func putOffFlush(_ context: ChannelHandlerContext) {
        self.isPutOff = true
        // A connection that is lost before then is not held for it.
        context.eventLoop.scheduleTask(in: EventLoopContext.timeToNextTurn) { [weak self] in
            self?.isPutOff = false
            self?.flushIfNeeded()
        }
    }

    /// Closes once the socket has taken everything: first only our direction, so that the peer reads to the end (a
    /// full close with unread bytes of the peer's would reset the connection under its hands), and the rest when the
    /// peer has closed too, or after a while.
    private func closeBehindWrites(_ context: ChannelHandlerContext) {
        self.closesWhenFlushed = true
        guard !self.isClosing else { return }
        self.isClosing = true
        self.willClose()
        let written = context.eventLoop.makePromise(of: Void.self)
        context.writeAndFlush(self.wrapOutboundOut(ByteBuffer()), promise: written)
        let channel = context.channel
        let patience = self.isPatient ? Self.timeForTheRest : Self.lingerTime
        let timer = context.eventLoop.scheduleTask(in: patience) { channel.close(promise: nil) }
        channel.closeFuture.whenComplete { _ in timer.cancel() }
        written.futureResult.whenComplete { _ in
            channel.close(mode: .output, promise: nil)
            let timer = channel.eventLoop.scheduleTask(in: Self.lingerTime) { channel.close(promise: nil) }
            channel.closeFuture.whenComplete { _ in timer.cancel() }
        }
    }

    /// One buffer of frames. True if there may be more.
    private func write(_ session: HTTP2Session, _ context: ChannelHandlerContext) throws(HTTP2SessionError) -> Bool {
        swap(&session.output, &self.loop.scratch)
        session.output.clear()
        do throws(HTTP2SessionError) {
            try session.drain(limit: Self.writeSize)
        } catch {
            swap(&session.output, &self.loop.scratch)
            throw error
        }
        let buffer = session.output
        session.output = ByteBuffer()
        guard buffer.readableBytes > 0 else {
            self.loop.scratch = buffer
            return false
        }
        context.writeAndFlush(self.wrapOutboundOut(buffer), promise: nil)
        self.loop.reuse(buffer, isPending: !context.channel.isWritable)
        if !context.channel.isWritable { self.unwrittenBytes += buffer.readableBytes }
        return buffer.readableBytes >= Self.writeSize
    }
}
