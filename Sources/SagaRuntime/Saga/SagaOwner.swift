/// Whom a row of `saga_state` belongs to, where that is no instance.
enum SagaOwner {
    /// It was given back: whoever likes may take it up at once.
    static let nobody: Int64 = 0
    /// It sleeps: only what stands in `saga_waiting` wakes it.
    static let asleep: Int64 = -1
}
