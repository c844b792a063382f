// test_main.cc — runs every TEST, or those whose sentence contains the first argument.
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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
    int left_out = 0;
    for (const Test& test : tests()) {
        if (count > 1 && strstr(test.sentence, arguments[1]) == nullptr) continue;
        failures_of_this_test = 0;
        skipped_this_test = false;
        test.body();
        ++(failures_of_this_test != 0 ? failed : skipped_this_test ? left_out : passed);
        if (failures_of_this_test != 0) fprintf(stderr, "FAILED: %s\n", test.sentence);
    }
    printf("%d passed, %d failed, %d skipped\n", passed, failed, left_out);
    fflush(stdout);
    _exit(failed == 0 && passed > 0 ? 0 : 1);
}
