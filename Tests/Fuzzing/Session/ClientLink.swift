import NIOEmbedded

@testable import RPCTransport

/// One of a client's connections, and the server at its other end.
final class ClientLink {
    let connection: ClientConnection
    let endpoint: Endpoint
    var peer = PeerFrames(firstStream: 2)
    private var noted: Set<Int32> = []

    init(_ connection: ClientConnection, _ endpoint: Endpoint) {
        self.connection = connection
        self.endpoint = endpoint
    }

    var isActive: Bool { self.endpoint.channel.isActive }

    /// The server learns of the calls' streams.
    func noteStreams(of calls: [ClientCall]) {
        for attempt in calls.compactMap(\.attempt) where attempt.connection === self.connection && attempt.id > 0 {
            if self.noted.insert(attempt.id).inserted { self.peer.noteStream(UInt32(attempt.id)) }
        }
    }
}
