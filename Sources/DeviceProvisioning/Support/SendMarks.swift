import SagaRuntime
import Synchronization

/// The marks of one client's requests. A request brings the name of its mark in a header, which the connection takes out.
final class SendMarks: Sendable {
    static let header = "devicerpc-send-mark"

    private let state = Mutex<(next: UInt64, marks: [UInt64: SendMark])>((0, [:]))

    func issue(_ authorize: @escaping @Sendable () throws(StepError) -> Void) -> (UInt64, SendMark) {
        let mark = SendMark(authorize)
        return self.state.withLock { state in
            state.next += 1
            state.marks[state.next] = mark
            return (state.next, mark)
        }
    }

    func forget(_ name: UInt64) { self.state.withLock { $0.marks[name] = nil } }

    func mark(_ name: UInt64) -> SendMark? { self.state.withLock { $0.marks[name] } }
}
