import Glibc

/// Runs the body on a thread of its own, since it takes seconds that other tests want from theirs.
func onThread(_ body: @escaping @Sendable () -> Void) async {
    await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
        let job = Unmanaged.passRetained(ThreadJob(body: body, continuation: continuation))
        var thread = pthread_t()
        let result = pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                let job = Unmanaged<ThreadJob>.fromOpaque(argument).takeRetainedValue()
                job.body()
                job.continuation.resume()
                return nil
            }, job.toOpaque())
        precondition(result == 0, "no thread could be made")
        pthread_detach(thread)
    }
}

private final class ThreadJob: Sendable {
    let body: @Sendable () -> Void
    let continuation: CheckedContinuation<Void, Never>

    init(body: @escaping @Sendable () -> Void, continuation: CheckedContinuation<Void, Never>) {
        self.body = body
        self.continuation = continuation
    }
}
