#include "lease.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

#include "directory.h"
#include "paths.h"

namespace kvlane {

int read_leases(LaneContext& lane, Operation& operation, int root, Leases& out) {
    out = {};
    const int directory = lane.open(operation, root, collector_name, O_RDONLY | O_DIRECTORY | O_NONBLOCK);
    if (directory == -ENOENT) return 0;
    if (directory < 0) return directory;
    DirectoryReader reader(lane, operation, directory);
    DirectoryReader::Entry entry;
    int result = 1;
    for (size_t i = 0; (result = reader.next(entry)) == 1; i++) {
        if (i == lease_entries_max) {
            result = -E2BIG;
            break;
        }
        const uint64_t number = lease_number(entry.name);
        if (number != 0) out.numbers.push_back(number);
        else if (lease_draft(entry.name)) out.drafts.emplace_back(entry.name);
        else if (entry.name == want_name) out.want = true;
        else if (entry.name == made_name) out.made = true;
    }
    lane.close(operation, directory);
    std::sort(out.numbers.begin(), out.numbers.end());
    return result;
}

std::string lease_trouble(int error) {
    return error == -E2BIG ? "collector/ holds more than " + std::to_string(lease_entries_max) + " entries: what is not of the collector must go" : "the directory collector/";
}

}  // namespace kvlane
