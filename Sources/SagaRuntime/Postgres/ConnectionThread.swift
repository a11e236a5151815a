import Glibc

/// The life of one connection, on its own thread: connect, serve requests, end.
struct ConnectionThread: Sendable {
    typealias Connected = CheckedContinuation<Result<LibpqSession.Info, PostgresError>, Never>

    let configuration: PostgresConfiguration
    let string: ConnectionString
    let host: ConnectionString.Host
    let mailbox: ConnectionMailbox

    /// Resumes `connected` once, then serves until the connection is lost or closed.
    func run(_ connected: Connected) {
        do throws(PostgresError) {
            var session = try LibpqSession.connect(self.configuration, self.string, to: self.host)
            self.mailbox.sessionStarted(socket: session.socket)
            connected.resume(returning: .success(session.info))
            self.serve(&session)
            // `session` is destroyed at the end of this scope, after its socket's number was withdrawn.
        } catch {
            let error = self.shown(error)
            self.mailbox.sessionWillEnd(error)
            connected.resume(returning: .failure(error))
        }
        self.mailbox.sessionEnded()
    }

    /// Every message of libpq and the server leaves this thread through here, without the string's secrets.
    private func shown(_ error: PostgresError) -> PostgresError {
        SecretFilter(conninfo: self.configuration.conninfo).filtered(error)
    }

    private func serve(_ session: inout LibpqSession) {
        var listeners: [String: AsyncThrowingStream<String, any Error>.Continuation] = [:]
        var end = PostgresError(.closed, "the connection is closed")
        loop: while true {
            if !session.isUsable {
                end = PostgresError(.connectionLost, "the connection was lost before")
                break
            }
            switch self.mailbox.next() {
            case .close:
                break loop
            case .request(let request):
                self.perform(request, &session, &listeners)
                Self.deliver(session, &listeners)
            case .idle:
                if !self.sleep(&session) {
                    end = PostgresError(.connectionLost, "the server closed the connection")
                    break loop
                }
                Self.deliver(session, &listeners)
            }
        }
        self.mailbox.sessionWillEnd(end)
        for listener in listeners.values { listener.finish(throwing: end) }
    }

    private func perform(
        _ request: ConnectionMailbox.Request, _ session: inout LibpqSession,
        _ listeners: inout [String: AsyncThrowingStream<String, any Error>.Continuation]
    ) {
        let deadline = session.deadline(request.timeout)
        do throws(PostgresError) {
            var rows: [SQLRows] = []
            switch request.work {
            case .pipeline(let queries, let transaction):
                rows = try session.run(queries, transaction, deadline)
            case .simple(let sql):
                try session.execute(sql, deadline)
            case .listen(let channel, let listener):
                let quoted = channel.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\"")
                try session.execute("LISTEN \"\(quoted)\"", deadline)
                listeners.updateValue(listener, forKey: channel)?.finish()
            }
            if self.mailbox.takeLosesNextReply() {
                self.mailbox.sever()
                self.mailbox.sessionIsLost()
                throw PostgresError(
                    .connectionLost, "the reply was lost on purpose", isOutcomeUnknown: true,
                    transactionID: session.transactionID)
            }
            if !session.isUsable { self.mailbox.sessionIsLost() }
            request.reply.resume(returning: .success(rows))
        } catch {
            if !session.isUsable { self.mailbox.sessionIsLost() }
            request.reply.resume(returning: .failure(self.shown(error)))
        }
    }

    /// Hands what has arrived to the streams. A stream whose reader is too slow ends with an error, which its reader
    /// treats like a lost connection: nothing is lost silently.
    private static func deliver(
        _ session: borrowing LibpqSession,
        _ listeners: inout [String: AsyncThrowingStream<String, any Error>.Continuation]
    ) {
        while let notification = session.nextNotification() {
            guard let listener = listeners[notification.channel] else { continue }
            switch listener.yield(notification.payload) {
            case .enqueued:
                break
            case .dropped:
                listener.finish(throwing: PostgresError(.overloaded, "notifications are not read fast enough"))
                listeners[notification.channel] = nil
            case .terminated:
                listeners[notification.channel] = nil
            @unknown default:
                break
            }
        }
    }

    /// Waits for a request or for something from the server.
    ///
    /// - Returns: false if the connection is lost.
    private func sleep(_ session: inout LibpqSession) -> Bool {
        var entries = [
            pollfd(fd: self.mailbox.wakeUp.readEnd, events: Int16(POLLIN), revents: 0),
            pollfd(fd: session.socket, events: Int16(POLLIN), revents: 0),
        ]
        let count = poll(&entries, 2, -1)
        if count < 0 { return errno == EINTR }
        if entries[0].revents != 0 { self.mailbox.wakeUp.clear() }
        if entries[1].revents != 0 { return session.consumeIdleInput() }
        return true
    }
}
