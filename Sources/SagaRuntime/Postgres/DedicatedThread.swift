import Glibc

/// A thread of our own, for C calls that block: the cooperative pool has only as many threads as there are cores.
enum DedicatedThread {
    /// Runs `body` on a new detached thread.
    ///
    /// - Parameter name: at most 15 bytes are kept, for `top -H` and debuggers.
    static func start(name: String, _ body: @escaping @Sendable () -> Void) throws(PostgresError) {
        var attributes = pthread_attr_t()
        // Fails only with ENOMEM, and not on Linux.
        guard pthread_attr_init(&attributes) == 0 else { throw PostgresError(.connectFailed, "no memory for a thread") }
        defer { pthread_attr_destroy(&attributes) }
        // EINVAL only for values that these are not.
        pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
        pthread_attr_setstacksize(&attributes, 1 << 20)
        // Retained here, released by the new thread; or right below when there is none.
        let box = Unmanaged.passRetained(Box(name: name, body: body))
        var thread = pthread_t()
        let code = pthread_create(&thread, &attributes, runBox, box.toOpaque())
        if code != 0 {
            // EAGAIN: the limit on threads or memory; EINVAL, EPERM: attributes that we don't set.
            box.release()
            throw PostgresError(.connectFailed, "can't start a thread: \(String(cString: strerror(code)))")
        }
    }

    /// Runs a blocking `body` on a thread of its own and waits for its result without blocking the caller's.
    nonisolated(nonsending) static func run<Value: Sendable>(
        name: String, _ body: @escaping @Sendable () throws(PostgresError) -> Value
    ) async throws(PostgresError) -> Value {
        let result: Result<Value, PostgresError> = await withCheckedContinuation { continuation in
            do throws(PostgresError) {
                try Self.start(name: name) {
                    do throws(PostgresError) {
                        continuation.resume(returning: .success(try body()))
                    } catch {
                        continuation.resume(returning: .failure(error))
                    }
                }
            } catch {
                continuation.resume(returning: .failure(error))
            }
        }
        return try result.get()
    }

    fileprivate final class Box: Sendable {
        let name: String
        let body: @Sendable () -> Void

        init(name: String, body: @escaping @Sendable () -> Void) {
            self.name = name
            self.body = body
        }
    }
}

private func runBox(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    guard let argument else { return nil }
    let box = Unmanaged<DedicatedThread.Box>.fromOpaque(argument).takeRetainedValue()
    // A name is a comfort: no matter if this fails.
    _ = SystemFile.write(String(box.name.prefix(15)), to: "/proc/thread-self/comm", mode: 0)
    box.body()
    return nil
}
