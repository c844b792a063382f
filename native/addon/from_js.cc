#include "from_js.h"

#include <stdlib.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "paths.h"

namespace kvlane {

namespace {

constexpr size_t columns = 5;  // of a block's row: id, region, offset, bytes, replace
constexpr double natural_max = 9007199254740991.0;  // 2^53 − 1: what a JavaScript number holds exactly

Napi::Error misuse(Napi::Env env, const std::string& message) { return coded_error(env, "KVLANE_MISUSE", message); }

uint64_t checked_natural(Napi::Env env, double number, const char* what) {
    if (!(number >= 0 && number <= natural_max) || number != static_cast<double>(static_cast<uint64_t>(number))) {
        throw misuse(env, std::string(what) + " must be a whole number from 0 to 2^53 - 1");
    }
    return static_cast<uint64_t>(number);
}

Kind kind_from_js(Napi::Env env, std::string_view word) {
    for (Kind kind : {Kind::load, Kind::store, Kind::lookup, Kind::remove, Kind::aside, Kind::identify, Kind::name_space, Kind::tidy, Kind::probe,
                      Kind::list, Kind::verify, Kind::remove_file, Kind::touch, Kind::lease, Kind::survey}) {
        if (word == kind_name(kind)) return kind;
    }
    throw misuse(env, "submit: no such kind: " + std::string(word));
}

LeaseAction lease_action_from_js(Napi::Env env, std::string_view word) {
    for (LeaseAction action : {LeaseAction::look, LeaseAction::take, LeaseAction::renew, LeaseAction::leave, LeaseAction::listen, LeaseAction::tell}) {
        if (word == lease_action_name(action)) return action;
    }
    throw misuse(env, "submit: action must be look, take, renew, leave, listen or tell, got " + std::string(word));
}

// The names were decoded and checked long before; this is the last look before they become paths.
std::string file_name(Napi::Env env, std::string value, const char* field) {
    if (value.empty() || value.find('/') != std::string::npos || value[0] == '.' || value.find('\0') != std::string::npos) {
        throw misuse(env, std::string("submit: ") + field + " cannot be a file name: " + value);
    }
    return value;
}

// One operation's fields by name.
class Fields {
  public:
    explicit Fields(Napi::Object object) : object_(object) {}
    uint64_t natural(const char* name) const { return kvlane::natural(object_.Get(name), name); }
    std::string text(const char* name) const { return kvlane::text(object_.Get(name), name); }
    bool truth(const char* name) const {
        const Napi::Value value = object_.Get(name);
        if (!value.IsBoolean()) throw misuse(object_.Env(), std::string("submit: ") + name + " must be true or false");
        return value.As<Napi::Boolean>().Value();
    }
    bool truth_if_given(const char* name) const { return !object_.Get(name).IsUndefined() && truth(name); }
    // A number of 64 bits in decimal digits, as a JavaScript number could not hold it. Empty, or not there at all: 0.
    uint64_t digits(const char* name) const {
        const Napi::Value value = object_.Get(name);
        if (value.IsUndefined()) return 0;
        const std::string word = kvlane::text(value, name);
        uint64_t number = 0;
        const auto read = std::from_chars(word.data(), word.data() + word.size(), number);
        if (!word.empty() && (read.ec != std::errc() || read.ptr != word.data() + word.size())) {
            throw misuse(object_.Env(), std::string("submit: ") + name + " must be a number of 64 bits in decimal digits, got " + word);
        }
        return number;
    }
    // "collector/8", the lease that must not be there yet: 8. Empty, or not there at all: 0.
    uint64_t fence(const char* name) const {
        const Napi::Value value = object_.Get(name);
        if (value.IsUndefined()) return 0;
        const std::string path = kvlane::text(value, name);
        const std::string_view directory = "collector/";
        const uint64_t number = path.starts_with(directory) ? lease_number(std::string_view(path).substr(directory.size())) : 0;
        if (!path.empty() && number == 0) throw misuse(object_.Env(), std::string("submit: ") + name + " must be collector/N, where N is a lease's number, got " + path);
        return number;
    }
    Napi::Value get(const char* name) const { return object_.Get(name); }
    std::string name(const char* field) const { return file_name(object_.Env(), text(field), field); }

  private:
    Napi::Object object_;
};

void give_memory(Napi::Env env, Core& core, uint64_t region_number, uint64_t offset, uint64_t bytes, Operation& operation) {
    operation.bytes = bytes;
    const Region region = core.region(region_number);
    if (!region.covers(offset, operation.bytes)) {
        throw misuse(env, "submit: bytes " + std::to_string(offset) + " to " + std::to_string(offset + operation.bytes) + " of region " +
                              std::to_string(region_number) + " are not an aligned part of its " + std::to_string(region.bytes) + " bytes");
    }
    operation.memory = region.memory + offset;
}

// "inode@modified_ns", as to_js.cc wrote it.
void read_file_identity(const std::string& word, Operation& operation) {
    char* end = nullptr;
    operation.inode = strtoull(word.c_str(), &end, 10);
    if (*end == '@') operation.modified_ns = strtoull(end + 1, nullptr, 10);
}

void read_names(Napi::Env env, const Fields& fields, Operation& operation) {
    const Napi::Value value = fields.get("names");
    if (!value.IsArray()) throw misuse(env, "submit: names must be an array of strings");
    const Napi::Array names = value.As<Napi::Array>();
    const uint32_t count = names.Length();
    operation.names.reserve(count);
    for (uint32_t i = 0; i < count; ++i) {
        Napi::HandleScope scope(env);  // thousands of names, one handle each
        operation.names.push_back(text(names.Get(i), "names"));
    }
    if (operation.kind == Kind::lookup) operation.found = std::vector<std::atomic<uint8_t>>(count);
}

}  // namespace

Napi::Error coded_error(Napi::Env env, const char* code, const std::string& message) {
    auto error = Napi::Error::New(env, message);
    error.Set("code", Napi::String::New(env, code));
    return error;
}

uint64_t natural(Napi::Value value, const char* what) {
    return checked_natural(value.Env(), value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1.0, what);
}

std::string text(Napi::Value value, const char* what) {
    if (!value.IsString()) throw misuse(value.Env(), std::string(what) + " must be a string");
    return value.As<Napi::String>().Utf8Value();
}

LaneClass lane_class_from_js(Napi::Value value, const char* what) {
    const std::string word = text(value, what);
    for (LaneClass lane_class : {LaneClass::load, LaneClass::store, LaneClass::metadata}) {
        if (word == lane_class_name(lane_class)) return lane_class;
    }
    throw misuse(value.Env(), std::string(what) + " must be load, store or metadata, got " + word);
}

EngineKind engine_from_js(Napi::Value value, const char* what) {
    const std::string word = text(value, what);
    for (EngineKind engine : {EngineKind::threads, EngineKind::aio}) {
        if (word == engine_name(engine)) return engine;
    }
    throw misuse(value.Env(), std::string(what) + " must be threads or aio, got " + word);
}

std::shared_ptr<Operation> operation_from_js(Core& core, Napi::Value value, LaneClass lane_class) {
    const Napi::Env env = value.Env();
    if (!value.IsObject()) throw misuse(env, "submit: the operation must be an object");
    const Fields fields(value.As<Napi::Object>());
    auto operation = std::make_shared<Operation>();
    operation->kind = kind_from_js(env, fields.text("kind"));
    operation->lane_class = lane_class;
    operation->id = fields.natural("id");
    operation->root_generation = static_cast<uint32_t>(fields.natural("rootGeneration"));
    operation->deadline_us = fields.natural("deadlineUs");
    operation->mount = core.mount(fields.natural("mount"));
    if (!operation->mount) throw misuse(env, "submit: no such mount");

    switch (operation->kind) {
        case Kind::load:
        case Kind::store:
            operation->name_space = fields.name("namespace");
            operation->hex = fields.name("hex");
            give_memory(env, core, fields.natural("region"), fields.natural("offset"), fields.natural("bytes"), *operation);
            if (operation->kind == Kind::load) break;
            operation->replace = fields.truth("replace");
            operation->durable = fields.truth("durable");
            break;
        case Kind::lookup:
            operation->name_space = fields.name("namespace");
            read_names(env, fields, *operation);
            break;
        case Kind::remove:
            operation->name_space = fields.name("namespace");
            operation->hex = fields.name("hex");
            operation->inode = fields.digits("inode");
            operation->modified_ns = fields.digits("modifiedNs");
            operation->recycles = fields.truth_if_given("recycles");
            operation->fence = fields.fence("fence");
            break;
        case Kind::remove_file:
            operation->path = fields.text("path");
            operation->inode = fields.digits("inode");
            operation->changed_ns = fields.digits("changedNs");
            operation->fence = fields.fence("fence");
            break;
        case Kind::list:
            operation->path = fields.text("path");
            operation->number = fields.digits("cookie");
            operation->entries_max = static_cast<uint32_t>(std::min<uint64_t>(fields.natural("entriesMax"), UINT32_MAX));
            break;
        case Kind::verify:
            operation->name_space = fields.name("namespace");
            operation->hex = fields.name("hex");
            break;
        case Kind::touch:
            operation->name_space = fields.name("namespace");
            read_names(env, fields, *operation);
            operation->older_us = fields.natural("olderUs");
            break;
        case Kind::lease:
            operation->lease = lease_action_from_js(env, fields.text("action"));
            operation->number = fields.natural("number");
            operation->text = fields.text("text");
            break;
        case Kind::aside:
            operation->name_space = fields.name("namespace");
            operation->hex = fields.name("hex");
            read_file_identity(fields.text("inode"), *operation);
            break;
        case Kind::identify: operation->create = fields.truth("create"); break;
        case Kind::name_space:
            operation->name_space = fields.name("namespace");
            operation->text = fields.text("fingerprint");
            operation->bump = fields.truth("bump");
            break;
        case Kind::tidy: operation->older_us = fields.natural("olderUs"); break;
        case Kind::probe: operation->lane_class = lane_class_from_js(fields.get("probeClass"), "probeClass"); break;
        case Kind::survey:
            operation->text = fields.text("step");
            operation->hex = fields.name("directory");
            break;
    }
    // Of those that make files: records, probe files and directories are for the same users as the blocks.
    switch (operation->kind) {
        case Kind::load:
        case Kind::lookup:
        case Kind::remove:
        case Kind::remove_file:
        case Kind::list:
        case Kind::verify:
        case Kind::touch: break;
        default: operation->file_mode = static_cast<uint32_t>(fields.natural("fileMode"));
    }
    return operation;
}

PackedBlocks::PackedBlocks(Core& core, Napi::Value shared, Napi::Value hexes, Napi::Value rows, LaneClass lane_class)
    : env_(shared.Env()), core_(core), lane_class_(lane_class) {
    if (!shared.IsObject()) throw misuse(env_, "submitBlocks: what the blocks share must be an object");
    const Fields fields(shared.As<Napi::Object>());
    kind_ = kind_from_js(env_, fields.text("kind"));
    if (kind_ != Kind::load && kind_ != Kind::store && kind_ != Kind::remove) throw misuse(env_, "submitBlocks: kind must be load, store or remove");
    root_generation_ = static_cast<uint32_t>(fields.natural("rootGeneration"));
    deadline_us_ = fields.natural("deadlineUs");
    mount_ = core.mount(fields.natural("mount"));
    if (!mount_) throw misuse(env_, "submitBlocks: no such mount");
    name_space_ = fields.name("namespace");
    if (kind_ == Kind::store) {
        durable_ = fields.truth("durable");
        file_mode_ = static_cast<uint32_t>(fields.natural("fileMode"));
    }
    hexes_ = kvlane::text(hexes, "submitBlocks: hexes");
    if (!rows.IsTypedArray() || rows.As<Napi::TypedArray>().TypedArrayType() != napi_float64_array) {
        throw misuse(env_, "submitBlocks: rows must be a Float64Array");
    }
    const auto numbers = rows.As<Napi::Float64Array>();
    rows_ = numbers.Data();
    count_ = numbers.ElementLength() / columns;
    if (count_ > 1) unfinished_ = std::make_shared<std::atomic<size_t>>(count_);
    // Names and rows that do not go together would give a block another one's name.
    const size_t lines = count_ == 0 ? 0 : 1 + static_cast<size_t>(std::count(hexes_.begin(), hexes_.end(), '\n'));
    if (numbers.ElementLength() % columns != 0 || lines != count_) {
        throw misuse(env_, "submitBlocks: " + std::to_string(lines) + " names and " + std::to_string(numbers.ElementLength()) + " numbers, " +
                               std::to_string(columns) + " for each name");
    }
}

Operations PackedBlocks::take(size_t most) {
    Operations taken;
    for (; most > 0 && left() > 0; --most) taken.push_back(next_block());
    return taken;
}

std::shared_ptr<Operation> PackedBlocks::next_block() {
    const size_t row = next_++;
    auto operation = std::make_shared<Operation>();
    operation->unfinished = unfinished_;
    operation->kind = kind_;
    operation->lane_class = lane_class_;
    operation->id = number(row, 0, "submitBlocks: id");
    operation->root_generation = root_generation_;
    operation->deadline_us = deadline_us_;
    operation->mount = mount_;
    operation->name_space = name_space_;
    const size_t from = std::min(hex_from_, hexes_.size());
    const size_t end = std::min(hexes_.find('\n', from), hexes_.size());
    operation->hex = file_name(env_, hexes_.substr(from, end - from), "hex");
    hex_from_ = end + 1;
    if (kind_ == Kind::remove) return operation;
    give_memory(env_, core_, number(row, 1, "submitBlocks: region"), number(row, 2, "submitBlocks: offset"), number(row, 3, "submitBlocks: bytes"), *operation);
    if (kind_ == Kind::load) return operation;
    operation->replace = number(row, 4, "submitBlocks: replace") != 0;
    operation->durable = durable_;
    operation->file_mode = file_mode_;
    return operation;
}

uint64_t PackedBlocks::number(size_t row, size_t column, const char* what) const { return checked_natural(env_, rows_[row * columns + column], what); }

}  // namespace kvlane
