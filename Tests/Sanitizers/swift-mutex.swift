// A program without a race: four threads count together under a Mutex, and hold it long enough to wait for each other.
// The thread sanitizer reports one all the same unless thread-annotations.c is linked in. `./dev sanitize thread` runs it
// both ways.

import Glibc
import Synchronization

final class Counter: Sendable {
    let value = Mutex(0)
}

let counter = Counter()
var threads: [pthread_t] = []
for _ in 0..<4 {
    var thread = pthread_t()
    pthread_create(
        &thread, nil,
        { _ in
            for _ in 0..<200 {
                counter.value.withLock { value in
                    value += 1
                    usleep(100)
                }
            }
            return nil
        }, nil)
    threads.append(thread)
}
for thread in threads { pthread_join(thread, nil) }
