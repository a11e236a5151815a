// A program without a race: a thread reads an object and lets go of it; then the other, which has the only reference left,
// changes it. The thread sanitizer reports one all the same unless thread-annotations.c is linked in.
// `./dev sanitize thread` runs it both ways.

import Glibc

final class Box {
    var value = 1
}

var boxes: [Box] = []
for _ in 0..<20 {
    var box = Box()
    var thread = pthread_t()
    pthread_create(
        &thread, nil,
        { argument in
            guard let argument else { return nil }
            let box = Unmanaged<Box>.fromOpaque(argument).takeRetainedValue()
            precondition(box.value == 1)
            return nil
        }, Unmanaged.passRetained(box).toOpaque())
    pthread_detach(thread)
    while !isKnownUniquelyReferenced(&box) { usleep(100) }
    box.value = 2
    boxes.append(box)
}
