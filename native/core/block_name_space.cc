// block_name_space.cc — a namespace's record: which fingerprint its current generation has.
//
// No two writers ever mean different things by one generation: a number is claimed first, by a file
// that only one can make (namespaces/<name>@<n>.json), and becomes current by renaming a second one
// over namespaces/<name>.json. A number that was claimed and never became current is skipped for ever.
#include <cerrno>

#include "block_steps.h"
#include "json_text.h"
#include "paths.h"
#include "store_identity.h"

namespace kvlane {
namespace {

constexpr uint64_t generation_max = 9'999'999'999;  // ten digits in a key
constexpr int claims_max = 64;                      // numbers tried; each one lost belongs to somebody bumping right now

struct Record {
    uint64_t generation = 0;
    std::string fingerprint;
};

class NameSpaceWork final : public Steps {
  public:
    using Steps::Steps;

    std::optional<Transfer> start(LaneContext& lane) override {
        if (!plain_name_space(op_.name_space) || op_.name_space.find('@') != std::string::npos) return fail(-EINVAL, Phase::queue, "not a namespace");
        Root* root = nullptr;
        if (lane.open_root(op_, root) != Status::ok) return std::nullopt;
        Phase phase = Phase::open;
        int directory = open_directory(lane, op_, root->fd, name_spaces_name, true, directory_mode(op_.file_mode), phase);
        if (directory < 0) return fail(directory, phase, "the directory namespaces/");
        settle(lane, root->fd, directory);
        close(lane, directory);
        return std::nullopt;
    }

  private:
    enum class Found : uint8_t { yes, no, failed };

    Found read(LaneContext& lane, int directory, Record& record) {
        std::string text;
        Phase phase = Phase::open;
        const int64_t bytes = read_small_file(lane, op_, directory, (op_.name_space + ".json").c_str(), text, phase);
        if (bytes == -ENOENT) return Found::no;
        const auto bad = [&] {
            end(Status::corrupt, 0, phase, "the record namespaces/" + op_.name_space + ".json cannot be understood");
            return Found::failed;
        };
        if (bytes == -not_a_record || bytes == -ELOOP) return bad();
        if (bytes < 0) {
            fail(bytes, phase);
            return Found::failed;
        }
        const auto members = json_members(text);
        if (!members) return bad();
        const auto name = members->find("name");
        const auto generation = members->find("generation");
        const auto fingerprint = members->find("fingerprint");
        if (name == members->end() || generation == members->end() || fingerprint == members->end()) return bad();
        const auto number = json_number(generation->second);
        if (name->second != json_quoted(op_.name_space) || !number || *number == 0 || *number > generation_max) return bad();
        if (fingerprint->second.front() != '{') return bad();  // an answer with anything else breaks the protocol
        record = {*number, json_compact(fingerprint->second)};
        return Found::yes;
    }

    std::string text_of(uint64_t generation) const {
        return "{\"name\":" + json_quoted(op_.name_space) + ",\"generation\":" + std::to_string(generation) + ",\"fingerprint\":" + op_.text + "}\n";
    }

    std::nullopt_t answer(const char* state, const Record& record) {
        return end(Status::ok, 0, Phase::read,
                   std::string("{\"state\":\"") + state + "\",\"generation\":" + std::to_string(record.generation) + ",\"fingerprint\":" + record.fingerprint + "}");
    }

    std::nullopt_t settle(LaneContext& lane, int root, int directory) {
        if (!json_members("{\"fingerprint\":" + op_.text + "}")) return fail(-EINVAL, Phase::queue, "the fingerprint is not JSON");
        Record record;
        const Found found = read(lane, directory, record);
        if (found == Found::failed) return std::nullopt;
        if (found == Found::yes && !op_.bump) return answer(record.fingerprint == json_compact(op_.text) ? "matches" : "differs", record);

        Phase phase = Phase::open;
        uint64_t generation = record.generation;
        int claimed = -EEXIST;
        for (int i = 0; i < claims_max && claimed == -EEXIST && generation < generation_max; i++) {
            generation++;
            const std::string claim = op_.name_space + "@" + std::to_string(generation) + ".json";
            claimed = publish_small_file(lane, op_, directory, claim.c_str(), text_of(generation), Publish::only_if_absent, op_.file_mode, phase);
            // Somebody else is making the first record at this moment: theirs is the namespace.
            if (claimed == -EEXIST && found == Found::no && !op_.bump) {
                const Found now = read(lane, directory, record);
                if (now == Found::failed) return std::nullopt;
                if (now == Found::yes) return answer(record.fingerprint == json_compact(op_.text) ? "matches" : "differs", record);
            }
        }
        if (claimed < 0) return fail(claimed, phase, "the record of generation " + std::to_string(generation));

        const std::string name = op_.name_space + ".json";
        const Publish how = op_.bump ? Publish::replace : Publish::only_if_absent;
        const int published = publish_small_file(lane, op_, directory, name.c_str(), text_of(generation), how, op_.file_mode, phase);
        if (published == -EEXIST) {  // the first to make it wins; our number is lost, nobody uses it
            const Found now = read(lane, directory, record);
            if (now == Found::failed) return std::nullopt;
            if (now == Found::yes) return answer(record.fingerprint == json_compact(op_.text) ? "matches" : "differs", record);
        }
        if (published < 0) return fail(published, phase, "the record of the namespace");
        // The directory may be as new as the record, and lost with it: the next to make a first generation would mean another.
        if (found == Found::no) force_out_names(lane, op_, root);
        return answer("created", {generation, json_compact(op_.text)});
    }
};

}  // namespace

std::unique_ptr<BlockWork> make_name_space(std::shared_ptr<Operation> operation) { return std::make_unique<NameSpaceWork>(std::move(operation)); }

}  // namespace kvlane
