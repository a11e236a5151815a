// A program without a race: a thread makes a value and resumes a continuation with it before the task has begun to wait.
// The thread sanitizer reports one all the same unless thread-annotations.c is linked in. `./dev sanitize thread` runs it
// both ways.

import Glibc

final class Box: @unchecked Sendable {  // written before it is handed over
    var value: Int
    init(_ value: Int) { self.value = value }
}

@main enum Program {
    static func main() async {
        for _ in 0..<20 {
            let box = await withCheckedContinuation { (continuation: CheckedContinuation<Box, Never>) in
                var thread = pthread_t()
                let argument = UnsafeMutablePointer<CheckedContinuation<Box, Never>>.allocate(capacity: 1)
                argument.initialize(to: continuation)
                pthread_create(
                    &thread, nil,
                    { argument in
                        argument?.assumingMemoryBound(to: CheckedContinuation<Box, Never>.self).pointee
                            .resume(returning: Box(1))
                        return nil
                    }, argument)
                pthread_detach(thread)
                usleep(2000)
            }
            precondition(box.value == 1)
        }
    }
}
