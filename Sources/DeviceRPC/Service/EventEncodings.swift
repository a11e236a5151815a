import NIOCore
import SagaRuntime
import Synchronization

/// The messages of the newest events, so that an event is encoded once however many watch it.
final class EventEncodings: Sendable {
    private struct Key: Hashable {
        var id: SagaID
        var sequence: UInt32
    }

    private struct State {
        var messages: [Key: ByteBuffer] = [:]
        /// A ring over the keys, the oldest overwritten first.
        var keys: [Key] = []
        var oldest = 0
    }

    private static let capacity = 256

    private let state = Mutex(State())

    func message(of event: SagaEvent, _ id: SagaID) -> ByteBuffer {
        let key = Key(id: id, sequence: event.sequence)
        if let message = self.state.withLock({ $0.messages[key] }) { return message }
        let message = V1.SagaEvent(event, of: id).encoded()
        self.state.withLock { state in
            guard state.messages.updateValue(message, forKey: key) == nil else { return }
            if state.keys.count < Self.capacity {
                state.keys.append(key)
            } else {
                state.messages[state.keys[state.oldest]] = nil
                state.keys[state.oldest] = key
                state.oldest = (state.oldest + 1) % Self.capacity
            }
        }
        return message
    }
}
