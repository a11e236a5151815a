import Crypto
import Synchronization

/// Tokens that were checked, by their hash, until they expire: a call with a known token costs a hash and a look-up.
final class TokenCache: Sendable {
    struct Key: Hashable, Sendable {
        private let digest: SHA256Digest

        init(_ token: UnsafeBufferPointer<UInt8>) {
            self.digest = SHA256.hash(data: UnsafeRawBufferPointer(token))
        }
    }

    private struct Entry {
        var caller: Caller
        /// Seconds since 1970.
        var until: Double
    }

    private struct State {
        var entries: [Key: Entry] = [:]
        /// A ring over the keys, the oldest overwritten first.
        var keys: [Key] = []
        var oldest = 0
        /// Of the keys that tokens are checked with.
        var generation = 0
    }

    private let capacity: Int
    private let state = Mutex(State())

    init(capacity: Int = 8192) { self.capacity = capacity }

    func caller(_ key: Key, now: Double) -> Caller? {
        self.state.withLock { state in
            guard let entry = state.entries[key], now < entry.until else { return nil }
            return entry.caller
        }
    }

    var generation: Int { self.state.withLock { $0.generation } }

    /// - Parameter generation: from before the token was checked; keys that changed meanwhile would not be asked again.
    func insert(_ caller: Caller, for key: Key, until: Double, generation: Int) {
        self.state.withLock { state in
            guard state.generation == generation else { return }
            guard state.entries.updateValue(Entry(caller: caller, until: until), forKey: key) == nil else { return }
            if state.keys.count < self.capacity {
                state.keys.append(key)
            } else {
                state.entries[state.keys[state.oldest]] = nil
                state.keys[state.oldest] = key
                state.oldest = (state.oldest + 1) % self.capacity
            }
        }
    }

    /// The keys have changed: every token is checked anew.
    func invalidate() {
        self.state.withLock { state in
            state.entries = [:]
            state.keys = []
            state.oldest = 0
            state.generation += 1
        }
    }

    var count: Int { self.state.withLock { $0.entries.count } }
}
