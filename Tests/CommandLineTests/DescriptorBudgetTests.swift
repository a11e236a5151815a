import Testing

@testable import devicerpc

@Suite struct DescriptorBudgetTests {
    private static let wish = DescriptorBudget.Wish(
        connections: 20_000, journalConnections: 2, readConnections: 12, eventLoops: 4, userServiceConnections: 64,
        engineConnections: 128)

    @Test func allIsGrantedWhereThereIsRoom() throws {
        let budget = try DescriptorBudget(limit: 1 << 20, Self.wish)
        #expect(budget.connections == 20_000)
        #expect(budget.userServiceConnections == 64)
        #expect(budget.engineConnections == 128)
        #expect(try DescriptorBudget(limit: budget.wanted, Self.wish).connections == 20_000)
        #expect(try DescriptorBudget(limit: budget.wanted - 1, Self.wish).connections < 20_000)
    }

    @Test func whatNobodyUsesIsForClients() throws {
        var wish = Self.wish
        wish.userServiceConnections = 0
        wish.engineConnections = 0
        let budget = try DescriptorBudget(limit: 512, wish)
        #expect(budget.userServiceConnections == 0 && budget.engineConnections == 0)
        #expect(budget.connections > (try DescriptorBudget(limit: 512, Self.wish)).connections)
    }

    @Test(arguments: [0, 64, 200, 230, 256, 300, 350, 512, 1024, 4096, 65_536, 1 << 30])
    func noMoreIsSharedOutThanThereIs(limit: Int) throws {
        let reserve =
            DescriptorBudget.ownFiles + DescriptorBudget.operatorConnections + 3 * 4
            + 3 * (DescriptorBudget.otherDatabaseConnections + 2 * 2 + 12)
        do throws(DescriptorBudget.TooFew) {
            let budget = try DescriptorBudget(limit: limit, Self.wish)
            let granted = budget.connections + budget.userServiceConnections + budget.engineConnections
            #expect(reserve + granted <= limit)
            #expect(budget.connections >= DescriptorBudget.fewestConnections)
            #expect(budget.userServiceConnections >= DescriptorBudget.fewestOutgoing)
            #expect(budget.engineConnections >= DescriptorBudget.fewestOutgoing)
        } catch {
            #expect(error.limit == limit && limit < error.needed)
            // What is said to be needed is enough, and one less is not.
            #expect(throws: Never.self) { try DescriptorBudget(limit: error.needed, Self.wish) }
            #expect(throws: DescriptorBudget.TooFew.self) { try DescriptorBudget(limit: error.needed - 1, Self.wish) }
        }
    }
}
