/// Now, told twice. The database's clock is everybody's, and may step: deadlines, back-offs and events go by it. The
/// uptime is this process' own, and never steps: what may still appear, and how long to wait, go by it.
struct Moment: Sendable, Equatable {
    var time: Timestamp
    var uptime: BootTime
}
