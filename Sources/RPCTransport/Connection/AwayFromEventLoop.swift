/// Runs `work`, which may take long, on a thread that is nobody's event loop.
///
/// A call's task begins on its connection's event loop (`Task.immediate`). Neither `@concurrent` takes it away from there,
/// nor a `Task.yield` that is over before it has suspended; a preferred executor does.
package func awayFromEventLoop<Result: Sendable, Failure>(
    _ work: @Sendable () throws(Failure) -> Result
) async throws(Failure) -> Result {
    try await withTaskExecutorPreference(Elsewhere.executor) { () async throws(Failure) in try work() }
}

/// The global executor, by an identity of its own: a task that was begun immediately counts as being on the global
/// executor already, wherever it is.
private final class Elsewhere: TaskExecutor {
    static let executor = Elsewhere()

    func enqueue(_ job: consuming ExecutorJob) { globalConcurrentExecutor.enqueue(UnownedJob(job)) }
}
