#if FAULT_POINTS
    import Glibc
    import Synchronization
#endif

/// A mend that a test build can take out again, so that the simulator shows that it finds what the mend is for: with the
/// mend out, a recorded seed must fail (docs/simulator.md).
///
/// `DEVICERPC_MUTANT=<name>` takes one out for the whole process, `takeOut` from now on. Release builds have none of this.
public enum Mutant: String, CaseIterable, Sendable {
    /// Whoever takes a saga up believes that every durable intent may have been sent, also those that were given back as
    /// unsent.
    case unsentIntentsAreDoubtful = "unsent-intents-are-doubtful"
    /// Whatever the database refuses is about a record, also when it takes none at all.
    case refusalsAreAboutRecords = "refusals-are-about-records"
    /// What waits for somebody else's lock is flushed again with all that shares its flush, until the lock is free.
    case locksHoldUpTheFlush = "locks-hold-up-the-flush"
    /// A gateway that gave up waiting is believed to have passed nothing on.
    case timeoutsCountedNothing = "timeouts-counted-nothing"
    /// An undo that is refused once is given up.
    case undoGivesUpWhenRefused = "undo-gives-up-when-refused"
    /// Callers are told that the database is away, and what they asked for stays queued.
    case queuedCreationsStay = "queued-creations-stay"
    /// The undo of a step believes the first thing that it destroys to be the only one.
    case firstFindingEndsDoubt = "first-finding-ends-doubt"
    /// Settle times and back-offs go by the database's clock.
    case intervalsFollowTheDatabase = "intervals-follow-the-database"
    /// What is in quarantine is known to the process that put it there, and to nobody else.
    case quarantineIsNotTold = "quarantine-is-not-told"
    /// A question counts from when it was answered, not from when it was sent.
    case answersCountWhenTheyCome = "answers-count-when-they-come"
    /// Whoever has a saga calls what it has itself: nothing says where the saga's things are.
    case callsGoToWhatIsHere = "calls-go-to-what-is-here"
    /// A call that was given up while it waited for a connection counts as sent.
    case whatWaitedCountsAsSent = "what-waited-counts-as-sent"
    /// A call is sent as soon as a connection is free, however little of its time is left.
    case lateCallsAreSent = "late-calls-are-sent"
    /// What waits stays awake: it is held, and counts, as if it worked.
    case whatWaitsStaysAwake = "what-waits-stays-awake"
    /// Waking a saga counts as taking it up without progress, and a probe that failed is none.
    case waitingIsNoProgress = "waiting-is-no-progress"
    /// Sagas are taken up whatever their site, as long as anybody serves it.
    case claimsAskForNoSite = "claims-ask-for-no-site"
    /// A saga falls asleep whatever it was commanded meanwhile.
    case sleepIgnoresCommands = "sleep-ignores-commands"
    /// Time spent asleep counts for a settle time whatever the clock has done.
    case sleepCountsInAnyEpoch = "sleep-counts-in-any-epoch"
    /// An undo is over while the other side still works on it.
    case undoLeavesJobs = "undo-leaves-jobs"

    #if FAULT_POINTS
        private static let out = Mutex(getenv("DEVICERPC_MUTANT").flatMap { Mutant(rawValue: String(cString: $0)) })

        public var isActive: Bool { Self.out.withLock { $0 == self } }

        /// `nil`: all mends are in.
        public static func takeOut(_ mutant: Mutant?) { Self.out.withLock { $0 = mutant } }
    #else
        @inlinable public var isActive: Bool { false }
    #endif
}
