#if FAULT_POINTS
    import Glibc
#endif

/// A mend that a test build can take out again, so that the simulator shows that it finds what the mend is for: with the
/// mend out, a recorded seed must fail (docs/simulator.md).
///
/// `DEVICERPC_MUTANT=<name>` takes one out for the whole process. Release builds have none of this.
public enum Mutant: String, CaseIterable, Sendable {
    /// Whoever takes a saga up believes that every durable intent may have been sent, also those that were given back as
    /// unsent.
    case unsentIntentsAreDoubtful = "unsent-intents-are-doubtful"
    /// An undo that is refused once is given up.
    case undoGivesUpWhenRefused = "undo-gives-up-when-refused"
    /// The undo of a step believes the first thing that it destroys to be the only one.
    case firstFindingEndsDoubt = "first-finding-ends-doubt"
    /// A question counts from when it was answered, not from when it was sent.
    case answersCountWhenTheyCome = "answers-count-when-they-come"

    #if FAULT_POINTS
        private static let out: Mutant? = getenv("DEVICERPC_MUTANT").flatMap { Mutant(rawValue: String(cString: $0)) }

        public var isActive: Bool { Self.out == self }
    #else
        @inlinable public var isActive: Bool { false }
    #endif
}
