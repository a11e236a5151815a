/// What the server counts of the connections of one address; but for `kept`, behind its lock.
struct ClientAccount {
    var connections = 0
    /// Of these, those whose handshake isn't over.
    var handshakes = 0
    let kept = KeptBytes.Account()
}
