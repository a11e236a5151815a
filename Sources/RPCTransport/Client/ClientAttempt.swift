import NIOCore

/// One try of a call: its stream on one connection.
///
/// `@unchecked Sendable` (inherited): touched on the connection's event loop only.
final class ClientAttempt: HTTP2Stream, @unchecked Sendable {
    let call: ClientCall
    let connection: ClientConnection
    var machine: ClientStreamMachine
    /// What was charged for request messages that have left for the socket.
    var sentInAll = 0

    init(_ call: ClientCall, on connection: ClientConnection, machine: ClientStreamMachine) {
        self.call = call
        self.connection = connection
        self.machine = machine
        super.init()
    }
}
