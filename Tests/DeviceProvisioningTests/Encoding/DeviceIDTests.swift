import Testing

@testable import DeviceProvisioning

@Suite struct DeviceIDTests {
    @Test func mintsVersion7() throws {
        let id = DeviceID.mint()
        let bytes = try #require(DeviceID.bytes(id))
        #expect(bytes.count == 16)
        #expect(bytes[6] >> 4 == 7)
        #expect(bytes[8] >> 6 == 2)
        #expect(DeviceID.text(bytes) == id)
        #expect(id != DeviceID.mint())
    }

    @Test func beginsWithTheTime() {
        var generator = SystemRandomNumberGenerator()
        let id = DeviceID.mint(milliseconds: 0x0123_4567_89AB, using: &generator)
        #expect(id.hasPrefix("01234567-89ab-7"))
    }

    @Test(arguments: [
        "", "x", "01234567-89ab-7000-8000-00000000000", "0123456789ab-7000-8000-0000000000000",
        "g1234567-89ab-7000-8000-000000000000",
    ])
    func refusesOtherText(_ text: String) {
        #expect(DeviceID.canonical(text) == nil)
    }

    @Test func canonicalIsLowerCase() {
        #expect(DeviceID.canonical("01234567-89AB-7000-8000-00000000000F") == "01234567-89ab-7000-8000-00000000000f")
    }
}
