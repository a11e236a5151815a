import Testing

@testable import SagaRuntime

/// What a new saga is told, against queues that are played through call by call.
@Suite struct BacklogTests {
    /// A site, and sagas that make two calls there; the second goes before the first of new ones.
    struct Site {
        var rate: Double?
        var concurrency: Int?
        var create: Double
        var start: Double
        /// Seconds between a saga's calls.
        var between = 0.02
    }

    /// A permit's place and time, second by second: exact to a millisecond.
    private struct Play {
        let site: Site
        var now = 0.0
        var nextStart = 0.0
        /// Ends of the calls under way, and whether these are first ones.
        var underWay: [(end: Double, isFirst: Bool)] = []
        /// When sagas ask for their second call.
        var asking: [Double] = []
        var present = 0
        var new: Int
        var begun = 0
        var durations: [String: Double] = [:]

        init(_ site: Site, new: Int) {
            self.site = site
            self.new = new
        }

        mutating func step() {
            self.now += 0.001
            let over = self.underWay.filter { $0.end <= self.now }
            self.underWay.removeAll { $0.end <= self.now }
            for call in over {
                self.durations[call.isFirst ? "CREATE" : "START"] = call.isFirst ? self.site.create : self.site.start
                if call.isFirst { self.asking.append(self.now + self.site.between) }
            }
            let ready = self.asking.count { $0 <= self.now }
            self.asking.removeAll { $0 <= self.now }
            self.present += ready
            while self.present + self.new > 0, self.underWay.count < self.site.concurrency ?? 1024,
                self.nextStart <= self.now
            {
                if let rate = self.site.rate { self.nextStart = max(self.nextStart, self.now - 0.1) + 1 / rate }
                let isFirst = self.present == 0
                if isFirst {
                    self.new -= 1
                    self.begun += 1
                } else {
                    self.present -= 1
                }
                self.underWay.append((self.now + (isFirst ? self.site.create : self.site.start), isFirst))
            }
        }

        var backlog: Backlog {
            let owed = self.underWay.count { $0.isFirst } + self.asking.count
            return Backlog(
                present: self.present > 0 ? ["START": self.present] : [:], owed: owed > 0 ? ["START": owed] : [:],
                admissions: self.new > 0 ? ["CREATE": self.new, "START": self.new] : [:], admissionCount: self.new,
                ahead: self.new, course: ["CREATE", "START"], concurrency: self.site.concurrency ?? 1024,
                underWay: self.underWay.count, rate: self.site.rate, pause: self.nextStart - self.now,
                durations: self.durations)
        }
    }

    private static let sites: [Site] = [
        Site(rate: 16, create: 0.01, start: 0.05), Site(rate: 16, create: 1, start: 4),
        Site(rate: 40, create: 0.01, start: 0.01),
        Site(concurrency: 1, create: 0.5, start: 1), Site(concurrency: 4, create: 0.2, start: 2),
        Site(concurrency: 8, create: 1, start: 1), Site(concurrency: 2, create: 2, start: 0.1),
        Site(rate: 16, concurrency: 4, create: 0.2, start: 1), Site(rate: 5, concurrency: 20, create: 0.5, start: 0.5),
    ]

    /// Right within 20 %, or one call's length: at any time from when both kinds of call have come back once.
    @Test(arguments: BacklogTests.sites.indices, [3, 20, 100])
    func isRightWithinAFifth(site: Int, new: Int) throws {
        let site = Self.sites[site]
        let call = max(site.create, site.start)
        for moment in [0.1, 0.5, 0.9] {
            var play = Play(site, new: new)
            while play.durations.count < 2 || Double(play.begun) < moment * Double(new) { play.step() }
            let told = try #require(play.backlog.wait).inSeconds
            let begin = play.now
            let ahead = play.new
            // One more, at the end of the line.
            play.new += 1
            while play.new > 0, play.now - begin < 10_000 { play.step() }
            let waited = play.now - begin
            #expect(
                abs(told - waited) <= max(0.2 * waited, call, 0.3),
                "\(ahead) before it: told \(told) s, it was \(waited) s")
        }
    }

    /// Before any call has come back nobody knows how long they take; a rate is known at once.
    @Test func withoutAnyCallARateIsAllThatIsKnown() {
        var backlog = Backlog(
            admissions: ["CREATE": 20, "START": 20], admissionCount: 20, ahead: 20, course: ["CREATE", "START"],
            concurrency: 2,
            underWay: 2)
        #expect(backlog.wait == nil)
        backlog.rate = 10
        #expect(backlog.wait == .seconds(4))
        backlog.undos = 10
        #expect(backlog.wait == .seconds(5))
    }
}
