import NIOCore
import RPCTransport
import SagaRuntime
import Synchronization

// CreateDevices: many creations on one stream.

extension DeviceService {
    /// Of one stream, at a time: requests that were read and have no result yet.
    private static let maximumCreations = 1024
    /// Their bytes, unless it is a single one: no more than a unary call may have the server hold.
    private static let maximumCreationBytes = Self.maximumCreateDeviceBytes

    func createDevices(_ messages: RPCMessageStream, _ context: RPCContext, _ writer: RPCWriter) async throws {
        let caller = try context.caller
        try writer.sendHeaders()
        let stream = CreationStream(messages)
        let place = self.creationStreams.enter(stream)
        defer { self.creationStreams.leave(place) }
        async let writing: Void = stream.write(to: writer)
        try await withThrowingTaskGroup(of: Int.self) { group in
            defer { stream.endResults() }
            var (index, running, bytes) = (UInt32(0), 0, 0)
            for try await message in messages where !stream.isOverfull {
                index &+= 1
                running += 1
                bytes += message.readableBytes
                group.addTask { [index] in
                    try await self.answer(message, index, on: stream, caller, context)
                    return message.readableBytes
                }
                // What isn't read yet waits at the client: HTTP/2's flow control does the rest.
                while running >= Self.maximumCreations || bytes >= Self.maximumCreationBytes || stream.isHeldUp,
                    let ended = try await group.next()
                {
                    running -= 1
                    bytes -= ended
                }
            }
            if stream.isOverfull { throw CreationStream.overfull }
            while try await group.next() != nil {}
        }
        try await writing
        if stream.isDraining { throw RPCError.shuttingDown }
    }

    /// One request to its result.
    ///
    /// - Throws: only what ends the stream.
    private func answer(
        _ message: ByteBuffer, _ index: UInt32, on stream: CreationStream, _ caller: Caller, _ context: RPCContext
    ) async throws {
        var result = V1.CreateDevicesResult()
        result.index = index
        let trail = AuditTrail()
        do {
            let request = try V1.CreateDeviceRequest(decoding: message)
            if request.requestID.utf8.count <= 64 { result.requestID = request.requestID }
            if request.name.utf8.count <= 400 { result.name = request.name }
            let response = try await self.createInTurn(request, caller, trail, on: stream)
            result.sagaID = response.sagaID
            result.device = response.device
            await self.audit.ended(context, .ok, trail)
        } catch {
            self.logIfInternal(error, of: "CreateDevices")
            let error = RPCError.of(error)
            await self.audit.ended(context, RPCError.code(of: error), trail)
            if error is CancellationError { throw error }
            let failure = error as? RPCError ?? RPCError(.unknown, "the creation failed")
            result.sagaID = failure.errorInfo?.metadata["saga_id"] ?? ""
            result.error =
                failure.status
                ?? GoogleRPC.Status.with {
                    $0.code = Int32(failure.code.rawValue)
                    $0.message = failure.message
                }
        }
        guard stream.append(result.encoded()) else { throw CreationStream.overfull }
    }

    /// As CreateDevice, but for OVERLOADED: it waits and tries again, and nothing more is read meanwhile.
    private func createInTurn(
        _ request: V1.CreateDeviceRequest, _ caller: Caller, _ trail: AuditTrail, on stream: CreationStream
    ) async throws -> V1.CreateDeviceResponse {
        var isHeldUp = false
        defer { if isHeldUp { stream.goesOn() } }
        while true {
            do {
                return try await self.createDevice(request, caller, trail, requiresRequestID: true)
            } catch SagaRuntimeError.overloaded(let delay) {
                // Others take it at once.
                if stream.isDraining { throw SagaRuntimeError.shuttingDown }
                if !isHeldUp { stream.isHeldUpByOneMore() }
                isHeldUp = true
                try await Task.sleep(for: min(delay, .seconds(1)))
            }
        }
    }
}

/// What the tasks of one CreateDevices stream share: its results on their way to the client, and why it ends.
final class CreationStream: Sendable {
    /// Of results that the client has not read.
    private static let maximumUnreadBytes = 8 << 20
    /// What a result takes besides its bytes.
    private static let resultOverhead = 64

    static var overfull: RPCError {
        RPCError(
            .clientTooSlow,
            "more than 8 MiB of results are not read; the sagas go on: repeat with the same request ids, and read meanwhile"
        )
    }

    private struct State {
        var unreadBytes = 0
        var isOverfull = false
        var isDraining = false
        /// Requests that wait until they can be started.
        var heldUp = 0
    }

    private let messages: RPCMessageStream
    private let results: AsyncStream<ByteBuffer>
    private let sink: AsyncStream<ByteBuffer>.Continuation
    private let state = Mutex(State())

    init(_ messages: RPCMessageStream) {
        self.messages = messages
        (self.results, self.sink) = AsyncStream.makeStream()
    }

    var isOverfull: Bool { self.state.withLock { $0.isOverfull } }
    var isDraining: Bool { self.state.withLock { $0.isDraining } }
    var isHeldUp: Bool { self.state.withLock { $0.heldUp > 0 } }

    func isHeldUpByOneMore() { self.state.withLock { $0.heldUp += 1 } }
    func goesOn() { self.state.withLock { $0.heldUp -= 1 } }

    /// Reads nothing more.
    func beginDraining() {
        self.state.withLock { $0.isDraining = true }
        self.messages.end()
    }

    /// - Returns: false: too much is not read, the stream is to end.
    func append(_ result: ByteBuffer) -> Bool {
        let fits = self.state.withLock { state in
            state.unreadBytes += result.readableBytes + Self.resultOverhead
            if state.unreadBytes > Self.maximumUnreadBytes { state.isOverfull = true }
            return !state.isOverfull
        }
        if fits { self.sink.yield(result) } else { self.messages.end() }
        return fits
    }

    /// No more results will follow.
    func endResults() { self.sink.finish() }

    /// Writes results until there are no more.
    func write(to writer: RPCWriter) async throws {
        for await result in self.results {
            try await writer.write(result)
            self.state.withLock { $0.unreadBytes -= result.readableBytes + Self.resultOverhead }
        }
    }
}

/// The CreateDevices streams of a server, to be told when it drains.
final class CreationStreams: Sendable {
    private struct State {
        var isDraining = false
        var next = 0
        var streams: [Int: CreationStream] = [:]
    }

    private let state = Mutex(State())

    func enter(_ stream: CreationStream) -> Int {
        let (place, isDraining) = self.state.withLock { state in
            state.next += 1
            state.streams[state.next] = stream
            return (state.next, state.isDraining)
        }
        if isDraining { stream.beginDraining() }
        return place
    }

    func leave(_ place: Int) { self.state.withLock { $0.streams[place] = nil } }

    func beginDraining() {
        let streams = self.state.withLock { state in
            state.isDraining = true
            return Array(state.streams.values)
        }
        for stream in streams { stream.beginDraining() }
    }
}
