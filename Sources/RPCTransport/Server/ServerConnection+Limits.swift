import NIOCore

/// How a connection turns its client away, and how it finds out that it should: docs/abuse.md.
extension ServerConnection {
    // MARK: The connection

    /// GOAWAY with the name of the rule, then the end. At once if the client doesn't even take that.
    func refuse(_ refusal: RPCRefusal) {
        guard let session = self.session, !self.isClosingDown else { return }
        self.isPatient = false
        self.shared.refusals.report(refusal, peer: self.peer)
        session.goAway(HTTP2ErrorCode.enhanceYourCalm, refusal.rawValue)
        self.close()
    }

    // MARK: Calls that are too slow

    func scheduleSweep() {
        let sweep = self.lastRead + self.sweepInterval
        self.nextSweep = sweep
        self.wantsSweep = false
        if sweep < self.timerDeadline || self.timerIndex < 0 { self.loop.schedule(self, at: sweep) }
    }

    /// Looks at all calls, at most every few seconds, and only while something is under way.
    func sweep(_ session: HTTP2Session, at now: NIODeadline) {
        self.nextSweep = nil
        self.wantsSweep = false
        var isWatching = false
        for case let call as ServerCall in session.streams {
            if self.isRequestTooSlow(call, at: now) {
                self.endSlowRequest(call)
            } else if self.isResponseTooSlow(call, at: now) {
                self.endSlowResponse(call)
            } else if call.requestWatch != nil || call.responseWatch != nil {
                isWatching = true
            }
        }
        if let violation = session.budget?.violation { return self.refuse(violation) }
        if session.unreadBytes > 8 * self.shared.configuration.limits.maximumUnreadBytes {
            return self.refuse(.tooMuchUnread)
        }
        if self.hasTooMuch { return self.refuse(.tooMuchKept) }
        if isWatching { self.nextSweep = now + self.sweepInterval }
    }

    /// A streaming request's message has begun, or is whole.
    func watchMessage(of call: ServerCall) {
        guard call.machine?.isInMessage == true else {
            call.requestWatch = nil
            return
        }
        if call.requestWatch == nil {
            call.requestWatch = ProgressWatch(bytes: call.requestBytes, at: self.lastRead)
            self.wantsSweep = true
        }
    }

    private func isRequestTooSlow(_ call: ServerCall, at now: NIODeadline) -> Bool {
        guard call.pending != nil || call.machine?.isInMessage == true, !call.isHeldBack, !call.waitsForCredit
        else {
            call.requestWatch = nil
            return false
        }
        let limits = self.shared.configuration.limits
        switch call.requestWatch?.look(
            bytes: call.requestBytes, at: now, patience: TimeAmount(limits.requestTimeout),
            bytesPerSecond: limits.minimumBytesPerSecond)
        {
        case .moves: call.requestWatch = ProgressWatch(bytes: call.requestBytes, at: now)
        case .tooSlow: return true
        case .patience, nil: break
        }
        return false
    }

    private func isResponseTooSlow(_ call: ServerCall, at now: NIODeadline) -> Bool {
        guard !call.outbound.isEmpty, let watch = call.responseWatch else {
            call.responseWatch = call.outbound.isEmpty ? nil : ProgressWatch(bytes: call.sentTotal, at: now)
            return false
        }
        let configuration = self.shared.configuration
        // The consumer of a stream may pause; a unary answer is read by the client's library.
        let patience = call.reportsProgress ? configuration.limits.stalledStreamTimeout : configuration.writeTimeout
        switch watch.look(
            bytes: call.sentTotal, at: now, patience: TimeAmount(patience),
            bytesPerSecond: configuration.limits.minimumBytesPerSecond)
        {
        case .moves: call.responseWatch = ProgressWatch(bytes: call.sentTotal, at: now)
        case .tooSlow: return true
        case .patience: break
        }
        return false
    }

    private func endSlowRequest(_ call: ServerCall) {
        self.session?.budget?.error()
        let error = RPCError(.deadlineExceeded, "the request took too long to arrive").counted(as: .slowRequest)
        self.finish(call, error)
        self.abandonHandler(of: call, error)
    }

    private func endSlowResponse(_ call: ServerCall) {
        self.shared.refusals.report(.slowResponse, peer: self.peer)
        if call.machine?.closed() == true { self.ended(call, .resourceExhausted) }
        // The budget counts this reset as it leaves.
        self.session?.reset(call, HTTP2ErrorCode.enhanceYourCalm)
        self.setNeedsFlush()
        self.abandonHandler(of: call, RPCError(.resourceExhausted, "the client does not read the response"))
    }

    // MARK: Too much that is not read

    /// Whether the call's handler has to wait because its client asks for more than it reads.
    func mustWait(_ call: ServerCall) -> Bool {
        guard let session = self.session, session.unreadBytes > self.shared.configuration.limits.maximumUnreadBytes
        else { return false }
        call.isHeldBack = true
        return true
    }

    func startHeldBack(_ session: HTTP2Session) {
        let limit = self.shared.configuration.limits.maximumUnreadBytes
        while session.unreadBytes <= limit, !self.heldBack.isEmpty {
            let (call, message) = self.heldBack.removeFirst()
            call.isHeldBack = false
            self.start(call, message)
        }
    }

    // MARK: What all connections keep

    /// What a call takes while it runs, for a handler that waits; in bytes (docs/performance.md).
    static let bytesOfCall = 8192

    func keptBytes(_ session: HTTP2Session) -> Int {
        self.bufferedBytes + self.waitingBytes + self.callBytes + session.unreadBytes + self.unwrittenBytes
    }

    /// A call takes so much more for as long as it lasts, or its handler if that is longer.
    func keep(_ count: Int, of call: ServerCall) {
        call.ownBytes += count
        self.callBytes += count
    }

    func letGoOfCall(_ call: ServerCall) {
        guard call.isClosed, !call.isHandlerRunning else { return }
        self.callBytes -= call.ownBytes
        call.ownBytes = 0
    }

    /// - Returns: whether it is notably more than it was.
    @discardableResult
    func countKept(_ bytes: Int) -> Bool {
        let old = self.countedBytes
        let new = bytes / KeptBytes.step * KeptBytes.step
        guard new != old else { return false }
        self.countedBytes = new
        self.shared.kept.change(from: old, to: new, of: self.account)
        return new > old
    }

    var hasTooMuch: Bool { self.countedBytes > 0 && self.shared.kept.isTooMuch(self.countedBytes, of: self.account) }

    // MARK: Messages that wait for their handler

    /// Bytes of a streaming request have come. How many may wait is bounded for each stream by its window and the message
    /// that is being assembled; they are counted for the bound on all connections.
    func waits(_ count: Int, for call: ServerCall) {
        guard call.machine?.isResponseEnded == false else { return }
        call.waitingBytes += count
        self.waitingBytes += count
    }

    /// Fewer if the call has ended since: then none wait any more.
    func handlerTook(_ count: Int, of call: ServerCall) {
        let count = min(count, call.waitingBytes)
        call.waitingBytes -= count
        self.waitingBytes -= count
    }

    // MARK: Requests that are not whole

    /// Keeps bytes of a call whose one message is still coming. Their credit goes back at once: a message larger than
    /// the window could not come otherwise. While the connection has us keep too many of them, one call gets credit and
    /// the others wait for it: what is kept stays within the bound and what the streams' windows had room for, and a
    /// client that completes its requests gets on with one after the other.
    func buffer(_ count: Int, of call: ServerCall, _ session: HTTP2Session) {
        guard call.pending != nil else { return session.returnCredit(count, to: call) }
        call.bufferedBytes += count
        self.bufferedBytes += count
        guard self.bufferedBytes > self.shared.configuration.limits.maximumBufferedRequestBytes,
            call !== self.favoured, !call.isRemoteEnded
        else { return session.returnCredit(count, to: call) }
        call.withheldCredit += count
        guard !call.waitsForCredit else { return }
        call.waitsForCredit = true
        self.withoutCredit.append(call)
        self.giveCredit()
        if call.waitsForCredit { self.shared.refusals.report(.tooMuchBuffered, peer: self.peer) }
    }

    /// The call's handler begins or never will. The favoured call keeps its place until then, also while it is held
    /// back: if it lost it when it is whole, requests would pile up of a client that doesn't read.
    func unbuffer(_ call: ServerCall) {
        guard call.bufferedBytes > 0 else { return }
        self.bufferedBytes -= call.bufferedBytes
        call.bufferedBytes = 0
        if call.waitsForCredit {
            call.waitsForCredit = false
            self.withoutCredit.removeAll { $0 === call }
        }
        if self.favoured === call { self.favoured = nil }
        if !self.withoutCredit.isEmpty { self.giveCredit() }
    }

    private func giveCredit() {
        guard let session = self.session else { return }
        let limit = self.shared.configuration.limits.maximumBufferedRequestBytes
        while !self.withoutCredit.isEmpty, self.bufferedBytes <= limit || self.favoured == nil {
            let call = self.withoutCredit.removeFirst()
            call.waitsForCredit = false
            if self.bufferedBytes > limit { self.favoured = call }
            session.returnCredit(call.withheldCredit, to: call)
            call.withheldCredit = 0
            // Its time begins now.
            call.requestWatch = ProgressWatch(bytes: call.requestBytes, at: .now())
            self.wantsSweep = true
            self.setNeedsFlush()
        }
    }
}
