import Glibc
import Testing

@testable import SagaRuntime

@Suite struct DailyTimeTests {
    @Test(arguments: [("02:00", 2, 0), ("0:5", 0, 5), ("23:59", 23, 59)])
    func timesAreRead(text: String, hour: Int, minute: Int) {
        #expect(DailyTime(text) == DailyTime(hour: hour, minute: minute))
    }

    @Test(arguments: ["", "2", "24:00", "12:60", "1:2:3", "-1:00", "02:00 ", "٢:00", "002:00"])
    func othersAreNot(text: String) { #expect(DailyTime(text) == nil) }

    @Test func theNewestInstantIsOfTodayOrYesterday() {
        // 2026-12-01 12:00:00 by this machine's zone, whatever that is.
        var noon = tm()
        (noon.tm_year, noon.tm_mon, noon.tm_mday, noon.tm_hour, noon.tm_isdst) = (126, 11, 1, 12, -1)
        let now = Int64(mktime(&noon))
        #expect(DailyTime(hour: 2, minute: 0).newest(before: now) == now - 10 * 3600)
        #expect(DailyTime(hour: 12, minute: 0).newest(before: now) == now)
        #expect(DailyTime(hour: 12, minute: 1).newest(before: now) == now + 60 - 24 * 3600)
    }
}
