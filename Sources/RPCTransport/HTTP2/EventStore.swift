/// Room for events, which the sessions of one event loop share: a session has none of its own while it does nothing, so
/// that a burst leaves no memory behind on its connection.
final class EventStore {
    /// Lent to the session that receives or is drained, until its events have been handled.
    @exclusivity(unchecked) var events: [HTTP2Event] = []
    /// Where events are put that come while others are handled.
    @exclusivity(unchecked) var spare: [HTTP2Event] = []
}
