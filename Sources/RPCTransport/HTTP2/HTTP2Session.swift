import CNghttp2
import Glibc
import NIOCore

/// The owner of one `nghttp2_session`: bytes in, events out; messages and headers in, bytes out.
///
/// A session is single-threaded: it belongs to its connection's event loop. nghttp2's callbacks run inside `receive`
/// and `drain` and only append to `events` and to streams; nothing in here calls back into its owner, so that
/// `nghttp2_session_mem_recv` and `_mem_send` are never entered twice.
///
/// The run-time check for overlapping accesses is off for its properties (and those of streams and connections): with
/// some sixty of them for each call it took a seventh of the instructions. One thread, and no re-entry.
final class HTTP2Session {
    enum Role: Sendable {
        case server
        case client
    }

    let role: Role
    let configuration: HTTP2Configuration

    /// Freed in deinit; nil only while `init` runs.
    @exclusivity(unchecked) private var session: OpaquePointer?
    private let makeStream: (Int32) -> HTTP2Stream

    /// Streams that nghttp2 knows. This array keeps them alive; nghttp2 has unretained pointers.
    @exclusivity(unchecked) private(set) var streams: [HTTP2Stream] = []
    @exclusivity(unchecked) private var events: [HTTP2Event] = []
    private let store: EventStore

    // What the callbacks note down for their callers.
    @exclusivity(unchecked) fileprivate(set) var hasReceivedSettings = false
    @exclusivity(unchecked) fileprivate(set) var hasSettingsAcknowledged = false
    /// A header block has begun and not ended.
    @exclusivity(unchecked) fileprivate(set) var isInHeaderBlock = false
    /// A GOAWAY with an error went out, ours or nghttp2's: the peer broke the protocol.
    @exclusivity(unchecked) fileprivate(set) var hasSentErrorGoAway = false
    /// What the peer may still cost us; nil only while `init` runs.
    @exclusivity(unchecked) var budget: FrameBudget?
    /// HEADERS or DATA went out since this was last cleared: PINGs are forgiven then.
    @exclusivity(unchecked) var hasSentHeadersOrData = false

    @exclusivity(unchecked) private var currentStream: HTTP2Stream?
    @exclusivity(unchecked) private var currentHeaders = HeaderList()
    @exclusivity(unchecked) private var currentHeaderBytes = 0
    @exclusivity(unchecked) private var currentIsOversized = false
    /// A header block went on long past the limit: the work that it may make is bounded by ending the connection.
    @exclusivity(unchecked) private var isHopeless = false
    @exclusivity(unchecked) private var inputBase: UnsafePointer<UInt8>?
    @exclusivity(unchecked) private var inputCount = 0
    @exclusivity(unchecked) private var connectionCredit = 0
    /// What the last `receive` took to do, in units of a frame. A header block is more by its length: one byte of it may be
    /// a whole field.
    @exclusivity(unchecked) private(set) var receivedWork = 0
    @exclusivity(unchecked) private var progressed: [HTTP2Stream] = []
    /// What is charged for messages that wait in the streams that were responded to.
    @exclusivity(unchecked) private(set) var unreadBytes = 0

    /// Where `drain` puts bytes. The owner lends it a buffer.
    @exclusivity(unchecked) var output = ByteBuffer()
    @exclusivity(unchecked) private var outputLimit = 0

    /// All that RFC 9113 doesn't name.
    private static let extensionTypes: ClosedRange<UInt8> = 10...255

    private static let headerBytesPerWork = 16

    /// Below this, a DATA frame's payload is cheaper copied twice than handled apart.
    private static let noCopyThreshold = 512

    init(
        role: Role, configuration: HTTP2Configuration, store: EventStore = EventStore(),
        makeStream: @escaping (Int32) -> HTTP2Stream
    ) {
        self.role = role
        self.configuration = configuration
        self.store = store
        self.makeStream = makeStream

        var options: OpaquePointer?
        // Allocation is the only way in which this and the next call fail; there is no going on without memory.
        precondition(nghttp2_option_new(&options) == 0, "out of memory")
        defer { nghttp2_option_del(options) }
        nghttp2_option_set_no_auto_window_update(options, 1)
        nghttp2_option_set_no_closed_streams(options, 1)
        nghttp2_option_set_max_outbound_ack(options, configuration.unsentAcknowledgements)
        // These two exist in the releases that answer CVE-2023-44487 and CVE-2024-28182 only: with older headers this
        // file doesn't compile. Our own budget of resets is tighter than the library's, which knows no debug text.
        nghttp2_option_set_stream_reset_rate_limit(options, 1_000_000, 1_000_000)
        nghttp2_option_set_max_continuations(options, configuration.continuations)
        nghttp2_option_set_no_rfc9113_leading_and_trailing_ws_validation(options, 1)
        nghttp2_option_set_peer_max_concurrent_streams(options, 100)
        // Frames of unknown types are dropped without a word unless somebody wants them; they have to be counted.
        for type in Self.extensionTypes { nghttp2_option_set_user_recv_extension_type(options, type) }

        let userData = Unmanaged.passUnretained(self).toOpaque()
        let result =
            switch role {
            case .server: nghttp2_session_server_new2(&self.session, sessionCallbacks.pointer, userData, options)
            case .client: nghttp2_session_client_new2(&self.session, sessionCallbacks.pointer, userData, options)
            }
        precondition(result == 0, "out of memory")
        self.budget = FrameBudget(configuration.frameBudget, now: .now())
        self.submitSettings()
    }

    deinit { nghttp2_session_del(self.session) }

    private func submitSettings() {
        var entries = [
            nghttp2_settings_entry(
                settings_id: Int32(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE.rawValue),
                value: UInt32(clamping: self.configuration.streamWindowBytes)),
            nghttp2_settings_entry(
                settings_id: Int32(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE.rawValue),
                value: UInt32(clamping: self.configuration.headerListBytes)),
            nghttp2_settings_entry(
                settings_id: Int32(NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES.rawValue), value: 1),
        ]
        switch self.role {
        case .server:
            entries.append(
                nghttp2_settings_entry(
                    settings_id: Int32(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS.rawValue),
                    value: self.configuration.maximumConcurrentStreams))
        case .client:
            entries.append(
                nghttp2_settings_entry(settings_id: Int32(NGHTTP2_SETTINGS_ENABLE_PUSH.rawValue), value: 0))
        }
        nghttp2_submit_settings(self.session, UInt8(NGHTTP2_FLAG_NONE.rawValue), entries, entries.count)
        nghttp2_session_set_local_window_size(
            self.session, UInt8(NGHTTP2_FLAG_NONE.rawValue), 0,
            Int32(clamping: max(65535, self.configuration.connectionWindowBytes)))
    }

    // MARK: Bytes in

    /// Takes everything that was read. `events` are for `takeEvents`, with offsets into this buffer.
    func receive(_ buffer: ByteBuffer, at now: NIODeadline = .now()) throws(HTTP2SessionError) {
        self.budget?.refill(at: now)
        self.receivedWork = 0
        self.borrowEvents()
        let count = buffer.withUnsafeReadableBytes { bytes in
            self.inputBase = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
            self.inputCount = bytes.count
            defer { self.inputBase = nil }
            return nghttp2_session_mem_recv(self.session, self.inputBase, bytes.count)
        }
        if self.connectionCredit > 0 {
            // The connection's window is given back on receipt, whatever the streams do (trap of part A6).
            nghttp2_session_consume_connection(self.session, self.connectionCredit)
            self.connectionCredit = 0
        }
        guard count >= 0 else {
            switch Int32(truncatingIfNeeded: count) {
            case NGHTTP2_ERR_BAD_CLIENT_MAGIC.rawValue: throw .notHTTP2
            case NGHTTP2_ERR_FLOODED.rawValue: throw .refused(.tooManyQueuedFrames)
            case NGHTTP2_ERR_TOO_MANY_CONTINUATIONS.rawValue: throw .refused(.tooManyContinuations)
            case let code:  // NOMEM, CALLBACK_FAILURE
                if let violation = self.budget?.violation { throw .refused(violation) }
                if self.isHopeless { throw .refused(.headerBlockTooLarge) }
                throw .failed(code: code)
            }
        }
        if nghttp2_session_get_outbound_queue_size(self.session) > self.configuration.queuedFrames {
            throw .refused(.tooManyQueuedFrames)
        }
    }

    /// Calls `body` with each event since the last time. `body` may submit what it likes.
    func forEachEvent(_ body: (consuming HTTP2Event) -> Void) {
        while !self.events.isEmpty {
            var batch = self.store.spare
            self.store.spare = []
            swap(&batch, &self.events)
            for index in batch.indices {
                // Taken out, so that `body` owns what the event carries and nothing is counted or copied twice.
                var event = HTTP2Event.settings
                swap(&event, &batch[index])
                body(event)
            }
            batch.removeAll(keepingCapacity: batch.count <= 1024)
            self.store.spare = batch
        }
        if self.events.capacity > 0 { swap(&self.events, &self.store.events) }
    }

    private func borrowEvents() {
        if self.events.capacity == 0 { swap(&self.events, &self.store.events) }
    }

    /// Gives back flow-control credit for bytes of the stream that were used or refused.
    func returnCredit(_ count: Int, to stream: HTTP2Stream) {
        guard count > 0, !stream.isRemoteEnded, !stream.isClosed else { return }
        nghttp2_session_consume_stream(self.session, stream.id, count)
    }

    // MARK: Bytes out

    /// SETTINGS_MAX_HEADER_LIST_SIZE of the peer: what it reads of a header block, in bytes as RFC 9113 counts them.
    var peerHeaderListBytes: Int {
        Int(nghttp2_session_get_remote_settings(self.session, NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE))
    }

    var wantsRead: Bool { nghttp2_session_want_read(self.session) != 0 }
    var wantsWrite: Bool { nghttp2_session_want_write(self.session) != 0 }

    /// How many streams the peer lets this side have open at once; 100 until it has said.
    var peerMaximumConcurrentStreams: Int {
        Int(nghttp2_session_get_remote_settings(self.session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS))
    }

    /// Appends frames to `output` until there are none or it holds about `limit` bytes.
    func drain(limit: Int) throws(HTTP2SessionError) {
        self.outputLimit = limit
        self.borrowEvents()
        while self.output.readableBytes < limit {
            var data: UnsafePointer<UInt8>?
            let count = nghttp2_session_mem_send(self.session, &data)
            guard count > 0, let data else {
                if count < 0 { throw .failed(code: Int32(truncatingIfNeeded: count)) }  // NOMEM, CALLBACK_FAILURE
                return
            }
            self.output.writeBytes(UnsafeRawBufferPointer(start: data, count: count))
        }
    }

    /// Calls `body` with each stream that reports progress and was read from since the last time, and what had been
    /// charged for that.
    func forEachProgress(_ body: (HTTP2Stream, Int) -> Void) {
        guard !self.progressed.isEmpty else { return }
        let progressed = self.progressed
        self.progressed.removeAll(keepingCapacity: true)
        for stream in progressed {
            let charge = stream.sentCharge
            stream.sentCharge = 0
            body(stream, charge)
        }
    }

    // MARK: Streams

    /// Sends Response-Headers; what is in `stream.outbound`, now or later, follows, and then `stream.end`.
    func respond(_ stream: HTTP2Stream, _ constants: ConstantFields, _ list: HeaderList? = nil) {
        guard !stream.isClosed else { return }
        var provider = Self.dataProvider(for: stream)
        stream.hasProvider = true
        self.unreadBytes += stream.outbound.charge
        let result = constants.with(list) { nghttp2_submit_response(self.session, stream.id, $0, $1, &provider) }
        if result != 0 { self.reset(stream, HTTP2ErrorCode.internalError) }
    }

    /// Sends a whole response in one header block (Trailers-Only).
    func respondTrailersOnly(_ stream: HTTP2Stream, _ constants: ConstantFields, _ list: HeaderList) {
        guard !stream.isClosed else { return }
        stream.end = .submitted
        let result = constants.with(list) { nghttp2_submit_response(self.session, stream.id, $0, $1, nil) }
        if result != 0 { self.reset(stream, HTTP2ErrorCode.internalError) }
    }

    /// Sends a whole response whose body is a short text and no gRPC message. All of it goes in one DATA frame: what
    /// the stream's window has no room for is left out.
    func respondText(
        _ stream: HTTP2Stream, _ constants: ConstantFields, _ list: HeaderList, _ text: StaticString
    ) {
        guard !stream.isClosed else { return }
        stream.end = .submitted
        var provider = nghttp2_data_provider()
        provider.source.ptr = UnsafeMutableRawPointer(mutating: text.utf8Start)
        provider.read_callback = onTextRead
        let result = constants.with(list) { nghttp2_submit_response(self.session, stream.id, $0, $1, &provider) }
        if result != 0 { self.reset(stream, HTTP2ErrorCode.internalError) }
    }

    /// Opens a stream for a request; what is in `stream.outbound`, now or later, follows, and then `stream.end`.
    func request(_ stream: HTTP2Stream, _ constants: ConstantFields, _ list: HeaderList) throws(HTTP2SessionError) {
        var provider = Self.dataProvider(for: stream)
        stream.hasProvider = true
        self.unreadBytes += stream.outbound.charge
        let userData = Unmanaged.passUnretained(stream).toOpaque()
        let result = constants.with(list) {
            nghttp2_submit_request(self.session, nil, $0, $1, &provider, userData)
        }
        // STREAM_ID_NOT_AVAILABLE after 2^30 calls, PROTO, NOMEM.
        guard result > 0 else { throw .failed(code: result) }
        stream.id = result
        self.insert(stream)
    }

    /// Appends a message to a stream that has been responded to or requested.
    func send(_ message: OutboundMessage, on stream: HTTP2Stream) { self.send([message], on: stream) }

    func send(_ messages: [OutboundMessage], on stream: HTTP2Stream) {
        guard !messages.isEmpty, !stream.isClosed, case .open = stream.end else { return }
        let before = stream.outbound.charge
        stream.outbound.append(messages)
        self.unreadBytes += stream.outbound.charge - before
        self.resume(stream)
    }

    /// Ends this side of the stream behind what is queued.
    ///
    /// With messages still queued the trailers go along with the last of them: submitted now, they would overtake.
    /// With none queued they are submitted at once: the provider isn't asked while a window is closed, and header
    /// blocks need no window.
    func finish(_ stream: HTTP2Stream, _ end: HTTP2Stream.End) {
        guard !stream.isClosed, case .open = stream.end else { return }
        stream.end = end
        if case .trailers(let list) = end, stream.outbound.isEmpty {
            self.submitTrailers(list, on: stream)
        } else {
            self.resume(stream)
        }
    }

    private func resume(_ stream: HTTP2Stream) {
        guard stream.isDeferred else { return }
        stream.isDeferred = false
        nghttp2_session_resume_data(self.session, stream.id)
    }

    fileprivate func submitTrailers(_ list: HeaderList?, on stream: HTTP2Stream) {
        stream.end = .submitted
        let constants: ConstantFields = list == nil ? .trailersOK : .none
        let result = constants.with(list) { nghttp2_submit_trailer(self.session, stream.id, $0, $1) }
        if result != 0 { self.reset(stream, HTTP2ErrorCode.internalError) }
    }

    /// Ends the stream at once; everything queued on it is dropped.
    func reset(_ stream: HTTP2Stream, _ errorCode: UInt32) {
        guard !stream.isClosed, stream.id != 0 else { return }
        self.discard(stream)
        stream.end = .submitted
        nghttp2_submit_rst_stream(self.session, UInt8(NGHTTP2_FLAG_NONE.rawValue), stream.id, errorCode)
    }

    /// Drops what waits in the stream.
    func discard(_ stream: HTTP2Stream) {
        if stream.hasProvider { self.unreadBytes -= stream.outbound.charge }
        stream.outbound.removeAll()
    }

    // MARK: Connection

    func ping(opaque: UInt64) {
        var bytes = opaque.bigEndian
        withUnsafeBytes(of: &bytes) {
            _ = nghttp2_submit_ping(
                self.session, UInt8(NGHTTP2_FLAG_NONE.rawValue), $0.baseAddress?.assumingMemoryBound(to: UInt8.self))
        }
    }

    /// The first GOAWAY of a graceful shutdown: "no new streams, please", with the highest id, so that streams on
    /// their way are still served.
    func announceShutdown() { nghttp2_submit_shutdown_notice(self.session) }

    /// The final GOAWAY: streams above the last one seen were not processed.
    func goAway(_ errorCode: UInt32, _ reason: String = "") {
        var reason = reason
        _ = reason.withUTF8 {
            nghttp2_submit_goaway(
                self.session, UInt8(NGHTTP2_FLAG_NONE.rawValue), nghttp2_session_get_last_proc_stream_id(self.session),
                errorCode, $0.baseAddress, $0.count)
        }
    }

    /// The connection is gone: every stream still open is closed, as events.
    func closeAllStreams(errorCode: UInt32) {
        for stream in self.streams {
            stream.slot = -1
            stream.isClosed = true
            self.discard(stream)
            self.events.append(.closed(stream, errorCode: errorCode))
        }
        self.streams = []
        self.currentStream = nil
    }

    private func insert(_ stream: HTTP2Stream) {
        stream.slot = self.streams.count
        self.streams.append(stream)
    }

    private func remove(_ stream: HTTP2Stream) {
        guard self.streams.indices.contains(stream.slot), let last = self.streams.popLast() else { return }
        if last !== stream {
            self.streams[stream.slot] = last
            last.slot = stream.slot
        }
        stream.slot = -1
    }

    /// The stream that nghttp2 means, if it is one of ours.
    fileprivate func stream(_ id: Int32) -> HTTP2Stream? {
        if let current = self.currentStream, current.id == id { return current }
        guard let pointer = nghttp2_session_get_stream_user_data(self.session, id) else { return nil }
        return Unmanaged<HTTP2Stream>.fromOpaque(pointer).takeUnretainedValue()
    }

    private static func dataProvider(for stream: HTTP2Stream) -> nghttp2_data_provider {
        var provider = nghttp2_data_provider()
        provider.source.ptr = Unmanaged.passUnretained(stream).toOpaque()
        provider.read_callback = onDataSourceRead
        return provider
    }
}

// MARK: - What the callbacks note down

extension HTTP2Session {
    /// A frame's header has come, of whatever frame: nghttp2 has no other callback for those that it ignores. False if
    /// it was one too many.
    fileprivate func beginFrame(_ header: nghttp2_frame_hd) -> Bool {
        self.receivedWork += header.type == NGHTTP2_DATA.rawValue ? 1 : 1 + header.length / Self.headerBytesPerWork
        guard self.budget != nil else { return true }
        switch UInt32(header.type) {
        case NGHTTP2_DATA.rawValue: self.budget?.received(.data)
        case NGHTTP2_HEADERS.rawValue: self.budget?.received(.headers(length: header.length))
        case NGHTTP2_CONTINUATION.rawValue: self.budget?.received(.continuation(length: header.length))
        case NGHTTP2_RST_STREAM.rawValue: self.budget?.received(.reset)
        default: self.budget?.received(.other)
        }
        return self.budget?.violation == nil
    }

    fileprivate func beginHeaders(_ frame: nghttp2_frame) {
        let id = frame.hd.stream_id
        self.budget?.headersAreTaken()
        self.isInHeaderBlock = true
        self.currentHeaders = HeaderList()
        self.currentHeaderBytes = 0
        self.currentIsOversized = false
        if self.role == .server, frame.headers.cat == NGHTTP2_HCAT_REQUEST {
            let stream = self.makeStream(id)
            self.insert(stream)
            nghttp2_session_set_stream_user_data(self.session, id, Unmanaged.passUnretained(stream).toOpaque())
            self.currentStream = stream
            self.currentHeaders.reserveCapacity(bytes: 320, fields: 12)
        } else {
            self.currentStream = self.stream(id)
        }
    }

    /// False if the block is so far over the limit that the connection is to be closed: what is still to come of it
    /// would cost more than all that its peer has sent so far.
    fileprivate func header(name: UnsafeBufferPointer<UInt8>, value: UnsafeBufferPointer<UInt8>) -> Bool {
        // RFC 9113, section 6.5.2: 32 bytes of overhead per field.
        self.currentHeaderBytes += name.count + value.count + 32
        if self.currentHeaderBytes > self.configuration.headerListBytes
            || self.currentHeaders.fields.count >= self.configuration.headerFields
        {
            self.currentIsOversized = true
            // A client reads it to its end, which is near (`max_continuations`): it costs one call, and not all.
            guard self.role == .server else { return true }
            self.isHopeless = self.currentHeaderBytes > 4 * self.configuration.headerListBytes
            return !self.isHopeless
        }
        self.currentHeaders.append(name: name, value: value)
        return true
    }

    fileprivate func received(_ frame: nghttp2_frame) {
        let isEnd = frame.hd.flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0
        switch UInt32(frame.hd.type) {
        case NGHTTP2_HEADERS.rawValue:
            self.isInHeaderBlock = false
            guard let stream = self.stream(frame.hd.stream_id) else { return }
            if isEnd { stream.isRemoteEnded = true }
            let headers = self.currentHeaders
            self.currentHeaders = HeaderList()
            self.events.append(
                .headers(stream, headers, endStream: isEnd, isOversized: self.currentIsOversized))
        case NGHTTP2_DATA.rawValue:
            if isEnd || frame.hd.length > frame.data.padlen { self.budget?.dataIsTaken() }
            if isEnd {
                guard let stream = self.stream(frame.hd.stream_id) else { return }
                stream.isRemoteEnded = true
                self.events.append(.end(stream))
            }
        case NGHTTP2_PING.rawValue:
            if frame.hd.flags & UInt8(NGHTTP2_FLAG_ACK.rawValue) != 0 {
                let opaque = withUnsafeBytes(of: frame.ping.opaque_data) {
                    UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self))
                }
                self.events.append(.pingAcknowledged(opaque: opaque))
            } else {
                self.events.append(.ping)
            }
        case NGHTTP2_SETTINGS.rawValue:
            if frame.hd.flags & UInt8(NGHTTP2_FLAG_ACK.rawValue) == 0 {
                if self.hasReceivedSettings { self.budget?.error() }
                self.hasReceivedSettings = true
                self.events.append(.settings)
            } else {
                self.hasSettingsAcknowledged = true
            }
        case NGHTTP2_GOAWAY.rawValue:
            let debugData = UnsafeBufferPointer(
                start: frame.goaway.opaque_data, count: min(frame.goaway.opaque_data_len, 256))
            self.events.append(
                .goAway(
                    lastStreamID: frame.goaway.last_stream_id, errorCode: frame.goaway.error_code,
                    debugData: Array(debugData)))
        default: break  // PRIORITY, WINDOW_UPDATE, RST_STREAM (seen as a closed stream)
        }
    }

    fileprivate func receivedData(_ id: Int32, _ data: UnsafePointer<UInt8>, _ count: Int) {
        self.connectionCredit += count
        guard let stream = self.stream(id), let base = self.inputBase else { return }
        // nghttp2 hands out a part of what it was given.
        let offset = data - base
        guard offset >= 0, offset + count <= self.inputCount else { return }
        self.events.append(.data(stream, offset: offset, count: count))
    }

    fileprivate func closed(_ id: Int32, errorCode: UInt32) {
        guard let stream = self.stream(id) else { return }
        if self.currentStream === stream {
            self.currentStream = nil
            // Of a block that breaks the rules nghttp2 tells no other end: it resets the stream.
            self.isInHeaderBlock = false
        }
        stream.isClosed = true
        self.discard(stream)
        self.remove(stream)
        self.events.append(.closed(stream, errorCode: errorCode))
    }

    fileprivate func sent(_ frame: nghttp2_frame) {
        switch UInt32(frame.hd.type) {
        case NGHTTP2_HEADERS.rawValue:
            self.hasSentHeadersOrData = true
            self.budget?.sentHeaders()
            if self.role == .client { self.stream(frame.hd.stream_id)?.areHeadersSent = true }
            self.resetIfAnswered(frame)
        case NGHTTP2_DATA.rawValue:
            self.hasSentHeadersOrData = true
            self.resetIfAnswered(frame)
        case NGHTTP2_RST_STREAM.rawValue:
            switch frame.rst_stream.error_code {
            case HTTP2ErrorCode.noError, HTTP2ErrorCode.cancel, HTTP2ErrorCode.refusedStream: break
            default: self.budget?.error()
            }
        case NGHTTP2_GOAWAY.rawValue:
            if frame.goaway.error_code != HTTP2ErrorCode.noError { self.hasSentErrorGoAway = true }
        default: break
        }
    }

    /// If the answer is whole and the client still sends: RST_STREAM(NO_ERROR), now that the end is out.
    private func resetIfAnswered(_ frame: nghttp2_frame) {
        guard frame.hd.flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0, self.role == .server,
            let stream = self.stream(frame.hd.stream_id), !stream.isRemoteEnded
        else { return }
        nghttp2_submit_rst_stream(
            self.session, UInt8(NGHTTP2_FLAG_NONE.rawValue), stream.id, HTTP2ErrorCode.noError)
    }

    /// nghttp2 asks for up to `count` bytes of the stream's DATA.
    fileprivate func read(
        _ stream: HTTP2Stream, into target: UnsafeMutablePointer<UInt8>, _ count: Int,
        _ flags: UnsafeMutablePointer<UInt32>
    ) -> Int {
        guard self.output.readableBytes < self.outputLimit else { return Int(NGHTTP2_ERR_PAUSE.rawValue) }
        let length = min(count, stream.outbound.byteCount)
        let isLast = length == stream.outbound.byteCount
        if isLast {
            switch stream.end {
            case .open:
                guard length > 0 else {
                    stream.isDeferred = true
                    return Int(NGHTTP2_ERR_DEFERRED.rawValue)
                }
            case .endStream: flags.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue
            case .trailers(let list):
                flags.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue | NGHTTP2_DATA_FLAG_NO_END_STREAM.rawValue
                self.submitTrailers(list, on: stream)
            case .submitted:
                flags.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue | NGHTTP2_DATA_FLAG_NO_END_STREAM.rawValue
            }
        }
        self.budget?.sentData(bytes: length, isLast: isLast)
        stream.sentTotal += length
        if length >= Self.noCopyThreshold {
            flags.pointee |= NGHTTP2_DATA_FLAG_NO_COPY.rawValue
        } else if length > 0 {
            self.take(length, of: stream, into: target)
        }
        return length
    }

    /// The frame that a NO_COPY answer of `read` belongs to is due: its header and its payload.
    fileprivate func writeData(_ stream: HTTP2Stream, frameHeader: UnsafePointer<UInt8>, _ count: Int) {
        self.output.writeWithUnsafeMutableBytes(minimumWritableBytes: 9 + count) { target in
            guard let base = target.baseAddress else { return 0 }
            base.copyMemory(from: frameHeader, byteCount: 9)
            self.take(count, of: stream, into: base + 9)
            return 9 + count
        }
    }

    private func take(_ count: Int, of stream: HTTP2Stream, into target: UnsafeMutableRawPointer) {
        let before = stream.outbound.charge
        stream.outbound.read(count, into: target)
        let charge = before - stream.outbound.charge
        self.unreadBytes -= charge
        guard stream.reportsProgress else { return }
        if stream.sentCharge == 0 { self.progressed.append(stream) }
        stream.sentCharge += charge
    }
}

// MARK: - Callbacks

/// `@unchecked Sendable`: made once, then only read; each session copies it.
private struct SessionCallbacks: @unchecked Sendable {
    let pointer: OpaquePointer?
}

/// Never freed: it lives as long as the process.
private let sessionCallbacks: SessionCallbacks = {
    var callbacks: OpaquePointer?
    precondition(nghttp2_session_callbacks_new(&callbacks) == 0, "out of memory")
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, onBeginFrame)
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, onBeginHeaders)
    nghttp2_session_callbacks_set_on_header_callback(callbacks, onHeader)
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, onFrameReceived)
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, onDataChunk)
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, onStreamClose)
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, onFrameSent)
    nghttp2_session_callbacks_set_unpack_extension_callback(callbacks, onUnpackExtension)
    nghttp2_session_callbacks_set_send_data_callback(callbacks, onSendData)
    return SessionCallbacks(pointer: callbacks)
}()

/// Calls `body` with the session behind nghttp2's user data, which outlives the call: `receive` or `drain` is running on
/// it. So it needs no reference of its own here.
@inline(__always)
private func withOwner<Result>(
    _ userData: UnsafeMutableRawPointer?, or none: Result, _ body: (HTTP2Session) -> Result
) -> Result {
    guard let userData else { return none }
    return Unmanaged<HTTP2Session>.fromOpaque(userData)._withUnsafeGuaranteedRef(body)
}

private func onBeginFrame(
    _: OpaquePointer?, _ header: UnsafePointer<nghttp2_frame_hd>?, _ userData: UnsafeMutableRawPointer?
) -> Int32 {
    guard let header else { return 0 }
    let isTaken = withOwner(userData, or: true) { $0.beginFrame(header.pointee) }
    return isTaken ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE.rawValue
}

private func onBeginHeaders(
    _: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ userData: UnsafeMutableRawPointer?
) -> Int32 {
    if let frame { withOwner(userData, or: ()) { $0.beginHeaders(frame.pointee) } }
    return 0
}

private func onHeader(
    _: OpaquePointer?, _: UnsafePointer<nghttp2_frame>?, _ name: UnsafePointer<UInt8>?, _ nameLength: Int,
    _ value: UnsafePointer<UInt8>?, _ valueLength: Int, _: UInt8, _ userData: UnsafeMutableRawPointer?
) -> Int32 {
    withOwner(userData, or: 0) { session in
        let isTaken = session.header(
            name: UnsafeBufferPointer(start: name, count: nameLength),
            value: UnsafeBufferPointer(start: value, count: valueLength))
        return isTaken ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE.rawValue
    }
}

private func onFrameReceived(
    _: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ userData: UnsafeMutableRawPointer?
) -> Int32 {
    if let frame { withOwner(userData, or: ()) { $0.received(frame.pointee) } }
    return 0
}

private func onDataChunk(
    _: OpaquePointer?, _: UInt8, _ id: Int32, _ data: UnsafePointer<UInt8>?, _ count: Int,
    _ userData: UnsafeMutableRawPointer?
) -> Int32 {
    if let data { withOwner(userData, or: ()) { $0.receivedData(id, data, count) } }
    return 0
}

private func onStreamClose(
    _: OpaquePointer?, _ id: Int32, _ errorCode: UInt32, _ userData: UnsafeMutableRawPointer?
) -> Int32 {
    withOwner(userData, or: ()) { $0.closed(id, errorCode: errorCode) }
    return 0
}

private func onFrameSent(
    _: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ userData: UnsafeMutableRawPointer?
) -> Int32 {
    if let frame { withOwner(userData, or: ()) { $0.sent(frame.pointee) } }
    return 0
}

/// A frame of an unknown type is whole: it means nothing (RFC 9113, section 4.1).
private func onUnpackExtension(
    _: OpaquePointer?, _: UnsafeMutablePointer<UnsafeMutableRawPointer?>?, _: UnsafePointer<nghttp2_frame_hd>?,
    _: UnsafeMutableRawPointer?
) -> Int32 {
    NGHTTP2_ERR_CANCEL.rawValue
}

private func onDataSourceRead(
    _: OpaquePointer?, _: Int32, _ target: UnsafeMutablePointer<UInt8>?, _ count: Int,
    _ flags: UnsafeMutablePointer<UInt32>?, _ source: UnsafeMutablePointer<nghttp2_data_source>?,
    _ userData: UnsafeMutableRawPointer?
) -> Int {
    let failure = Int(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue)
    guard let target, let flags, let pointer = source?.pointee.ptr else { return failure }
    return withOwner(userData, or: failure) { session in
        Unmanaged<HTTP2Stream>.fromOpaque(pointer)._withUnsafeGuaranteedRef {
            session.read($0, into: target, count, flags)
        }
    }
}

/// The source is a literal, with a NUL behind it.
private func onTextRead(
    _: OpaquePointer?, _: Int32, _ target: UnsafeMutablePointer<UInt8>?, _ count: Int,
    _ flags: UnsafeMutablePointer<UInt32>?, _ source: UnsafeMutablePointer<nghttp2_data_source>?,
    _: UnsafeMutableRawPointer?
) -> Int {
    guard let target, let flags, let text = source?.pointee.ptr else {
        return Int(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue)
    }
    flags.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue
    let length = min(count, strlen(text.assumingMemoryBound(to: CChar.self)))
    memcpy(target, text, length)
    return length
}

private func onSendData(
    _: OpaquePointer?, _: UnsafeMutablePointer<nghttp2_frame>?, _ frameHeader: UnsafePointer<UInt8>?, _ count: Int,
    _ source: UnsafeMutablePointer<nghttp2_data_source>?, _ userData: UnsafeMutableRawPointer?
) -> Int32 {
    guard let frameHeader, let pointer = source?.pointee.ptr else {
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue
    }
    withOwner(userData, or: ()) { session in
        Unmanaged<HTTP2Stream>.fromOpaque(pointer)._withUnsafeGuaranteedRef {
            session.writeData($0, frameHeader: frameHeader, count)
        }
    }
    return 0
}
