import NIOCore

/// Something that is to be called at a time, in a `TimerQueue`.
protocol TimerNode: AnyObject {
    /// Where the queue keeps the node; -1 if it doesn't. The queue's own.
    var timerIndex: Int { get set }
    /// When it is due. The queue's own.
    var timerDeadline: NIODeadline { get set }
    func timerFired(at now: NIODeadline)
}

/// A binary heap of deadlines in which a node knows its place, so that a call's deadline is dropped in O(log n) when
/// the call ends, which is how nearly all of them end. (Event loops look for a cancelled timer one by one.)
struct TimerQueue {
    private var nodes: [any TimerNode] = []

    var earliest: NIODeadline? { self.nodes.first?.timerDeadline }

    var count: Int { self.nodes.count }

    /// Puts the node in, or moves it.
    mutating func schedule(_ node: any TimerNode, at deadline: NIODeadline) {
        self.cancel(node)
        node.timerDeadline = deadline
        node.timerIndex = self.nodes.count
        self.nodes.append(node)
        self.siftUp(node.timerIndex)
    }

    mutating func cancel(_ node: any TimerNode) {
        let index = node.timerIndex
        guard index >= 0, index < self.nodes.count else { return }
        node.timerIndex = -1
        let last = self.nodes.removeLast()
        guard index < self.nodes.count else { return }
        self.nodes[index] = last
        last.timerIndex = index
        self.siftDown(index)
        self.siftUp(last.timerIndex)
    }

    /// Takes out one node that is due.
    mutating func popDue(at now: NIODeadline) -> (any TimerNode)? {
        guard let first = self.nodes.first, first.timerDeadline <= now else { return nil }
        self.cancel(first)
        return first
    }

    private mutating func siftUp(_ start: Int) {
        var index = start
        while index > 0 {
            let parent = (index - 1) / 2
            guard self.nodes[index].timerDeadline < self.nodes[parent].timerDeadline else { return }
            self.swap(index, parent)
            index = parent
        }
    }

    private mutating func siftDown(_ start: Int) {
        var index = start
        while true {
            var least = index
            for child in (2 * index + 1)...(2 * index + 2) where child < self.nodes.count {
                if self.nodes[child].timerDeadline < self.nodes[least].timerDeadline { least = child }
            }
            guard least != index else { return }
            self.swap(index, least)
            index = least
        }
    }

    private mutating func swap(_ a: Int, _ b: Int) {
        self.nodes.swapAt(a, b)
        self.nodes[a].timerIndex = a
        self.nodes[b].timerIndex = b
    }
}
