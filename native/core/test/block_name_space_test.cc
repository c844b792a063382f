// block_name_space_test.cc — a generation number never means two fingerprints.
#include <filesystem>
#include <set>
#include <thread>

#include "../json_text.h"
#include "block_fixture.h"
#include "test.h"

using namespace kvlane;

namespace {

std::shared_ptr<Operation> name_space(TestStore& store, const std::string& fingerprint, bool bump = false) {
    const auto op = store.operation(Kind::name_space, LaneClass::metadata);
    op->name_space = "llama";
    op->text = fingerprint;
    op->bump = bump;
    return op;
}

std::string said(const Result& result) { return status_name(result.status) + std::string(" ") + result.text; }

const std::string a = "{\"model\":\"a\"}";
const std::string b = "{\"model\":\"b\"}";

}  // namespace

TEST("a namespace is created once, then matches or differs, and a bump starts a generation") {
    TestStore store;
    CHECK(said(store.run(name_space(store, a))) == "ok {\"state\":\"created\",\"generation\":1,\"fingerprint\":" + a + "}");
    CHECK(said(store.run(name_space(store, a))) == "ok {\"state\":\"matches\",\"generation\":1,\"fingerprint\":" + a + "}");
    CHECK(said(store.run(name_space(store, b))) == "ok {\"state\":\"differs\",\"generation\":1,\"fingerprint\":" + a + "}");
    CHECK(said(store.run(name_space(store, b, true))) == "ok {\"state\":\"created\",\"generation\":2,\"fingerprint\":" + b + "}");
    CHECK(said(store.run(name_space(store, a))) == "ok {\"state\":\"differs\",\"generation\":2,\"fingerprint\":" + b + "}");
    CHECK(said(store.run(name_space(store, b))) == "ok {\"state\":\"matches\",\"generation\":2,\"fingerprint\":" + b + "}");
    CHECK(store.leftovers().empty());
}

TEST("white space in a record that a hand has touched makes no difference") {
    TestStore store;
    TestStore::write_file(store.root + "/namespaces/llama.json", "{ \"name\" : \"llama\",\n  \"generation\" : 7,\n  \"fingerprint\" : { \"model\" : \"a\" } }\n");
    CHECK(said(store.run(name_space(store, a))) == "ok {\"state\":\"matches\",\"generation\":7,\"fingerprint\":" + a + "}");
}

TEST("a record that cannot be understood is corrupt, also for a bump, and stays as it is") {
    for (const char* text : {"", "{", "{\"name\":\"llama\"}", "{\"name\":\"other\",\"generation\":1,\"fingerprint\":{}}",
                             "{\"name\":\"llama\",\"generation\":0,\"fingerprint\":{}}", "{\"name\":\"llama\",\"generation\":-1,\"fingerprint\":{}}",
                             "{\"name\":\"llama\",\"generation\":1,\"fingerprint\":7}"}) {
        TestStore store;
        TestStore::write_file(store.root + "/namespaces/llama.json", text);
        CHECK(store.run(name_space(store, a)).status == Status::corrupt);
        CHECK(store.run(name_space(store, a, true)).status == Status::corrupt);
        CHECK(TestStore::contents(store.root + "/namespaces/llama.json") == text);
    }
}

TEST("a number that was claimed and never published is skipped") {
    TestStore store;
    store.run(name_space(store, a));
    TestStore::write_file(store.root + "/namespaces/llama@2.json", "{}");
    CHECK(said(store.run(name_space(store, b, true))) == "ok {\"state\":\"created\",\"generation\":3,\"fingerprint\":" + b + "}");
}

TEST("many that create a namespace at once agree on one fingerprint") {
    TestStore store;
    std::vector<std::string> answers(4);
    std::vector<std::thread> threads;
    for (size_t i = 0; i < answers.size(); i++) {
        const auto op = name_space(store, "{\"model\":\"" + std::to_string(i) + "\"}");
        threads.emplace_back([&store, &answers, i, op] {
            WatchWord word;
            LaneContext lane(posix_file_system(), word, store.clock);
            answers[i] = store.run(op, lane).text;
            lane.close_roots();
        });
    }
    for (std::thread& thread : threads) thread.join();
    int created = 0;
    const auto first = json_members(answers[0]);
    for (const std::string& answer : answers) {
        const auto members = json_members(answer);
        CHECK(members && first && members->at("fingerprint") == first->at("fingerprint") && members->at("generation") == first->at("generation"));
        created += answer.find("created") != std::string::npos ? 1 : 0;
    }
    CHECK(created == 1);
    CHECK(store.leftovers().empty());
}

TEST("many that bump at once get a generation each") {
    TestStore store;
    store.run(name_space(store, a));
    std::vector<std::string> answers(4);
    std::vector<std::thread> threads;
    for (size_t i = 0; i < answers.size(); i++) {
        const auto op = name_space(store, "{\"model\":\"" + std::to_string(i) + "\"}", true);
        threads.emplace_back([&store, &answers, i, op] {
            WatchWord word;
            LaneContext lane(posix_file_system(), word, store.clock);
            answers[i] = store.run(op, lane).text;
            lane.close_roots();
        });
    }
    for (std::thread& thread : threads) thread.join();
    std::set<std::string> generations;
    for (const std::string& answer : answers) {
        const auto members = json_members(answer);
        CHECK(members);
        if (members) generations.insert(members->at("generation"));
    }
    CHECK(generations.size() == answers.size());
    CHECK(store.leftovers().empty());
}
