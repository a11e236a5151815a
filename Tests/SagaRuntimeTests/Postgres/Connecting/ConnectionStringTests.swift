@testable import SagaRuntime
import Testing

@Suite struct ConnectionStringTests {
    private func hosts(_ text: String) throws -> [ConnectionString.Host] { try ConnectionString(text).hosts }

    @Test func hostsComeInTheirOrder() throws {
        #expect(
            try self.hosts("postgresql://u:p@a:1,b:2/db?target_session_attrs=read-write") == [
                ConnectionString.Host(name: "a", port: "1"), ConnectionString.Host(name: "b", port: "2"),
            ])
        #expect(
            try self.hosts("host=a,/run/pg,::1 port=5433 dbname=x") == [
                ConnectionString.Host(name: "a", port: "5433"), ConnectionString.Host(name: "/run/pg", port: "5433"),
                ConnectionString.Host(name: "::1", port: "5433"),
            ])
        #expect(
            try self.hosts("host=a,b hostaddr=127.0.0.1,127.0.0.2") == [
                ConnectionString.Host(name: "a", address: "127.0.0.1"),
                ConnectionString.Host(name: "b", address: "127.0.0.2"),
            ])
        #expect(try self.hosts("dbname=x") == [ConnectionString.Host()])
    }

    @Test func whoIsToBeLookedUp() throws {
        let hosts = try self.hosts("host=a,/run,@x,127.0.0.1,::1")
        #expect(hosts.map(\.needsLookUp) == [true, false, false, false, false])
        #expect(!ConnectionString.Host(name: "a", address: "127.0.0.1").needsLookUp)
        #expect(!ConnectionString.Host().needsLookUp)
    }

    @Test func optionsAreDecodedAndHostsAreNotAmongThem() throws {
        let string = try ConnectionString("postgresql://us%65r:p%2Fw@a:1/db?connect_timeout=1")
        let options = Dictionary(uniqueKeysWithValues: string.options.map { ($0.keyword, $0.value) })
        #expect(options == ["user": "user", "password": "p/w", "dbname": "db", "connect_timeout": "1"])
        // libpq takes one second for two.
        #expect(string.connectTimeout == .seconds(2))
        #expect(try ConnectionString("host=a connect_timeout=0").connectTimeout == nil)
    }

    @Test(arguments: [
        "", "hunter2", "postgresql://u:hunter2@[::1/x", "host=a hunter2=1", "postgresql://u:hunter2/x@a/db",
        "postgresql://u:1/hunter2@a/db", "postgresql://u:x@hunter2@a/db", "postgresql://u:x@hunter2:y@a/db",
        "host=a port=hunter2",
        "host=a port=0", "host=a port=65536", "host=a,b,c port=1,2", "host=a,b hostaddr=1.1.1.1",
        "host=a sslmode=hunter2",
        "host=a gssencmode=hunter2", "host=a channel_binding=hunter2", "host=a target_session_attrs=standby",
        "host=a target_session_attrs=prefer-standby", "host=a keepalives_idle=hunter2",
        "postgresql://u:hunter2%zz@a/db",
    ])
    func whatIsWrongIsToldWithoutRepeatingIt(_ text: String) {
        let problem = PostgresConfiguration.problem(inConninfo: text)
        #expect(problem != nil)
        #expect(problem?.contains("hunter2") == false)
    }

    @Test(arguments: [
        "postgresql://u:p@a/db?user=name@server", "postgresql:///db?host=/run/pg", "postgres://a,b:2/db",
        "host=a user=x@y",
        "postgresql://u%40server:p%2F%40@a/db", "postgresql://u@a/d%40b", "host=a sslmode=verify-full", "service=x",
        "postgresql://u:p?x@a/db",
    ])
    func whatIsRightIsTaken(_ text: String) {
        #expect(PostgresConfiguration.problem(inConninfo: text) == nil)
    }

    // MARK: Secrets

    @Test(arguments: [
        ("postgresql://app:s3cret/p@host/db", "invalid integer value \"s3cret\" for connection option \"port\""),
        ("postgresql://app:s3cret/p@host/db", "database \"p@host/db\" or s3cret/p"),
        ("postgresql://app:a@s3cret@host/db", "could not translate host name \"s3cret@host\""),
        ("postgresql://app:s3cr%65t@host/db", "s3cret and s3cr%65t"),
        ("postgresql://app@host/db?password=s3cret", "s3cret"),
        ("postgresql://app@host/db?sslpassword=s3cret", "s3cret"),
        ("postgresql://app@host/db?passfile=/s3cret", "retrieved from file \"/s3cret\""),
        ("host=h password='s3cret x'", "s3cret x"),
        ("host=h password=pa s3cret dbname=x", "missing \"=\" after \"s3cret\""),
        ("host=h options='-c my.token=s3cret'", "invalid value: \"s3cret\""),
        ("host=h password=s3", "the secret s3 of two"),
    ])
    func secretsAreTakenOut(_ conninfo: String, _ message: String) {
        let shown = SecretFilter(conninfo: conninfo).filtered(message)
        #expect(!shown.contains("s3"))
    }

    @Test func theRestOfAMessageStays() {
        let filter = SecretFilter(conninfo: "postgresql://app:s3cret@host:5432/db?options=-c%20work_mem%3D1")
        let message = "connection to server at \"host\", port 5432 failed: FATAL: no role \"app\""
        #expect(filter.filtered(message) == message)
        #expect(filter.filtered("x s3cret y") == "x *** y")
        #expect(SecretFilter(conninfo: "nonsense").filtered("nonsense") == "nonsense")
    }

    // MARK: Refusals

    @Test func sqlstatesAreRead() {
        let refused = ConnectFailure(
            libpqMessage: """
                connection to server at "127.0.0.1", port 5432 failed: FATAL:  3D000: database "x" does not exist
                LOCATION:  InitPostgres, postinit.c:941

                """)
        #expect(refused.sqlstate == "3D000")
        #expect(refused.isMisconfiguration)
        #expect(
            refused.words
                == "connection to server at \"127.0.0.1\", port 5432 failed: FATAL:  database \"x\" does not exist")
        let full = ConnectFailure(libpqMessage: "致命的エラー:  53300: sorry, too many clients already\n")
        #expect(full.sqlstate == "53300")
        #expect(!full.isMisconfiguration)
    }

    @Test(arguments: [
        ("invalid sslmode value: \"x\"", true), ("server does not support SSL, but SSL was required", true),
        ("fe_sendauth: no password supplied", true), ("definition of service \"x\" not found", true),
        ("SSL error: certificate verify failed", true), ("Connection refused\n\tIs the server running", false),
        ("could not translate host name \"a\" to address: Temporary failure", false),
        ("server closed the connection unexpectedly", false), ("", false), ("FATAL:  57P03: starting", false),
        ("FATAL:  08P01: x", false), ("FATAL:  28P01: x", true), ("FATAL:  28000: x", true), ("FATAL:  42501: x", true),
        ("FATAL:  25006: x", false),
    ])
    func whatNobodyButAnOperatorCanMend(_ message: String, _ isMisconfiguration: Bool) {
        #expect(ConnectFailure(libpqMessage: message).isMisconfiguration == isMisconfiguration)
    }
}
