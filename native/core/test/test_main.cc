// test_main.cc — runs every TEST, or those whose sentence contains the first argument.
//
// KVLANE_TESTS_LEFT_OUT names a file of lines "sentence: reason", for places where a test cannot be (an emulator): they are not run, not
// counted, and named; a line that fits no test is a failure, so that the list does not outlive its reasons.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "test.h"

namespace kvlane::test {

namespace {

struct Test {
    const char* sentence;
    void (*body)();
};
std::vector<Test>& tests() {
    static std::vector<Test>* all = new std::vector<Test>;
    return *all;
}
struct LeftOut {
    std::string line;
    bool found = false;
};
std::vector<LeftOut> left_out_lines() {
    std::vector<LeftOut> lines;
    const char* path = getenv("KVLANE_TESTS_LEFT_OUT");
    if (path == nullptr) return lines;
    std::ifstream file(path);
    if (!file) fail(path, 0, "cannot be read");
    for (std::string line; std::getline(file, line);) {
        if (!line.empty() && line[0] != '#') lines.push_back({line});
    }
    return lines;
}
bool left_out(const char* sentence, std::vector<LeftOut>& lines) {
    for (LeftOut& one : lines) {
        if (!one.line.starts_with(sentence + std::string(": "))) continue;
        one.found = true;
        printf("LEFT OUT: %s\n", one.line.c_str());
        return true;
    }
    return false;
}
int failures_of_this_test = 0;
bool skipped_this_test = false;

}  // namespace

Registration::Registration(const char* sentence, void (*body)()) { tests().push_back({sentence, body}); }

void fail(const char* file, int line, const std::string& what) {
    ++failures_of_this_test;
    fprintf(stderr, "%s:%d: %s\n", file, line, what.c_str());
}

bool skipped(const std::string& why) {
    skipped_this_test = true;
    printf("SKIPPED: %s\n", why.c_str());
    fflush(stdout);
    return true;
}

bool eventually(const std::function<bool()>& what) {
    for (int i = 0; i < 50'000; ++i) {
        if (what()) return true;
        const timespec pause{0, 100'000};
        nanosleep(&pause, nullptr);
    }
    return what();
}

}  // namespace kvlane::test

int main(int count, char** arguments) {
    using namespace kvlane::test;
    int passed = 0;
    int failed = 0;
    int skipped = 0;
    std::vector<LeftOut> out = left_out_lines();
    failed += failures_of_this_test;
    for (const Test& test : tests()) {
        if (count > 1 && strstr(test.sentence, arguments[1]) == nullptr) continue;
        if (left_out(test.sentence, out)) continue;
        failures_of_this_test = 0;
        skipped_this_test = false;
        test.body();
        ++(failures_of_this_test != 0 ? failed : skipped_this_test ? skipped : passed);
        if (failures_of_this_test != 0) fprintf(stderr, "FAILED: %s\n", test.sentence);
    }
    for (const LeftOut& one : out) {
        if (one.found || count > 1) continue;
        ++failed;
        fprintf(stderr, "FAILED: no test has this sentence: %s\n", one.line.c_str());
    }
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    fflush(stdout);
    _exit(failed == 0 && passed > 0 ? 0 : 1);
}
