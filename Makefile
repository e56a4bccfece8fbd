# Holdfast. `make help` lists the targets. Everything that is built goes to build/.
#
# One non-recursive makefile. Each folder of the house is one archive; archives are linked in the order of the house, so an
# arrow that points up doesn't link. VARIANT is release, asan (address and undefined behaviour), tsan (threads) or fuzz.

.DEFAULT_GOAL := all
SHELL := /bin/bash
.DELETE_ON_ERROR:
.SUFFIXES:

VARIANT ?= release
PREFIX ?= /usr
O := build/$(VARIANT)
BIN := $(if $(filter release,$(VARIANT)),build/bin,$(O)/bin)
GEN := build/gen

VERSION := 0.1.0
CC_release := gcc
CC_asan := gcc
CC_tsan := clang
CC_fuzz := clang
CC := $(CC_$(VARIANT))
FLAGS_release := -O2 -g
# Lines and names are enough for the reports of sanitizers; all of -g makes compiling half as long again.
FLAGS_asan := -O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
FLAGS_fuzz := -O1 -g1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
FLAGS_tsan := -O1 -g1 -fsanitize=thread -fno-omit-frame-pointer
WARNINGS := -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Werror
CPPFLAGS := -D_GNU_SOURCE -DHOLDFAST_VERSION='"$(VERSION)"' -I. -I$(GEN)
CFLAGS := -std=c17 $(FLAGS_$(VARIANT)) $(WARNINGS) -fPIC -fno-strict-aliasing -fno-common
# A quick linker (of binutils, too), for a hundred and more test programs.
LDFLAGS := $(FLAGS_$(VARIANT)) $(if $(filter asan tsan,$(VARIANT)),-fuse-ld=gold) -pthread

# One line a step; V=1 shows the commands.
say = $(if $(V),,@printf '%-5s%s\n' $(1) $@;)

# ---- The house: folder -> archive --------------------------------------------------------------------------------
sources = $(sort $(wildcard $(1)/*.c))
objects = $(patsubst %.c,$(O)/%.o,$(1))

PROTO_FILES := $(wildcard proto/*.proto)
PROTO_C := $(patsubst %.proto,$(GEN)/%.pb-c.c,$(PROTO_FILES))

LIB_base := $(call sources,node/base)
LIB_env := $(call sources,node/env)
LIB_envos := $(call sources,node/env/os)
LIB_raft := $(call sources,raft)
LIB_storage := $(call sources,storage)
LIB_engine := $(call sources,storage/os)
LIB_proto := $(call sources,proto)
LIB_tls := $(call sources,proto/tls)
LIB_client := $(call sources,proto/client)
LIB_server := $(filter-out node/server/main.c,$(call sources,node/server))
LIB_ctl := $(filter-out node/ctl/main.c,$(call sources,node/ctl))
LIB_sim := $(filter-out tests/sim/main.c,$(call sources,tests/sim))
LIB_check := $(filter-out tests/chaos/check/main.c,$(call sources,tests/chaos/check))
LIB_support := $(call sources,tests/unit/support)
LIBS_ALL := support sim check ctl server client tls proto engine storage raft envos env base
EXTRA_OBJECTS_proto := $(patsubst $(GEN)/%.c,$(O)/gen/%.o,$(PROTO_C))

archive = $(O)/libholdfast-$(1).a
define ARCHIVE_RULE
$(call archive,$(1)): $$(call objects,$$(LIB_$(1))) $$(EXTRA_OBJECTS_$(1))
	@rm -f $$@ && mkdir -p $$(@D) && ar rcsD $$@ $$^
OBJECTS += $$(call objects,$$(LIB_$(1))) $$(EXTRA_OBJECTS_$(1))
endef
$(foreach lib,$(LIBS_ALL),$(eval $(call ARCHIVE_RULE,$(lib))))

link = $(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group
LIBS_SERVER := $(foreach lib,server tls proto storage raft envos env base,$(call archive,$(lib)))
LIBS_CLIENT := $(foreach lib,client tls proto envos env base,$(call archive,$(lib)))
LD_SERVER := -luring -luv -lssl -lcrypto -lprotobuf-c -linih -ljansson -lsystemd -llz4 -lzstd -lm
LD_CLIENT := -luring -luv -lssl -lcrypto -lprotobuf-c -linih -ljansson -lm

# ---- Programs ----------------------------------------------------------------------------------------------------
PROGRAMS := $(if $(wildcard node/server/main.c),$(BIN)/holdfastd) $(if $(wildcard node/ctl/main.c),$(BIN)/holdfastctl) $(BIN)/holdfast-dump $(BIN)/holdfast-check
LIBRARIES := $(if $(LIB_client),$(BIN)/../lib/libholdfast.a $(BIN)/../lib/libholdfast.so.0) $(BIN)/../lib/libholdfast-storage.a

all: $(PROGRAMS) $(LIBRARIES) ## build the daemon, the command line and the client library

$(BIN)/holdfastd: $(O)/node/server/main.o $(LIBS_SERVER)
	@mkdir -p $(@D)
	$(call say,LINK)$(link) $(LD_SERVER) -Wl,-Map=$(O)/holdfastd.map

$(BIN)/holdfastctl: $(O)/node/ctl/main.o $(call archive,ctl) $(LIBS_CLIENT)
	@mkdir -p $(@D)
	$(call say,LINK)$(link) $(LD_CLIENT)

DUMP_OBJECTS := $(call objects,$(addprefix storage/tools/,dump.c dump_change.c dump_file.c dump_manifest.c dump_sst.c dump_value.c dump_verify.c dump_wal.c))
OBJECTS += $(DUMP_OBJECTS)
$(BIN)/holdfast-dump: $(DUMP_OBJECTS) $(foreach lib,storage envos env base,$(call archive,$(lib)))
	@mkdir -p $(@D)
	$(call say,LINK)$(link) $(LD_SERVER)

# Judges histories of clients; a program of the tests, which isn't installed.
$(BIN)/holdfast-check: $(O)/tests/chaos/check/main.o $(foreach lib,check base,$(call archive,$(lib)))
	@mkdir -p $(@D)
	$(call say,LINK)$(link) -ljansson
OBJECTS += $(O)/tests/chaos/check/main.o

# The client library stands alone: its archive holds all that it needs of the folders below it.
CLIENT_OBJECTS := $(call objects,$(LIB_client) $(LIB_tls) $(LIB_proto) $(LIB_envos) $(LIB_env) $(LIB_base)) $(EXTRA_OBJECTS_proto)
$(BIN)/../lib/libholdfast.a: $(CLIENT_OBJECTS)
	@mkdir -p $(@D)
	@rm -f $@ && ar rcsD $@ $^
$(BIN)/../lib/libholdfast.so.0: $(CLIENT_OBJECTS) proto/client/libholdfast.map
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) $(LDFLAGS) -shared -Wl,-soname,libholdfast.so.0 -Wl,--version-script=proto/client/libholdfast.map -o $@ \
	    $(filter %.o,$^) $(LD_CLIENT)
	@ln -sf libholdfast.so.0 $(@D)/libholdfast.so

# Every production object but env and TLS, whether something asks for it or not; of the client only its core.
LIBS_SIM := $(foreach lib,sim check server proto storage raft env base,$(call archive,$(lib)))
$(BIN)/holdfast-sim: $(O)/tests/sim/main.o $(LIBS_SIM) $(call archive,client)
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) $(LDFLAGS) -o $@ $< -Wl,--whole-archive $(LIBS_SIM) -Wl,--no-whole-archive $(call archive,client) $(LD_SERVER) \
	    -Wl,-Map=$(O)/holdfast-sim.map

# A file that changes only when the commit does, for reports of failing seeds.
COMMIT = $(shell git describe --always --dirty 2>/dev/null || echo unknown)
$(GEN)/build-commit.h: FORCE
	@mkdir -p $(@D)
	@echo '#define BUILD_COMMIT "$(COMMIT)"' | cmp -s - $@ || echo '#define BUILD_COMMIT "$(COMMIT)"' >$@
$(O)/tests/sim/main.o: $(GEN)/build-commit.h
FORCE:

# The judge of the simulator's traces shares nothing with what it judges.
REPLAY_OBJECTS := $(call objects,$(call sources,tests/sim/replay))
OBJECTS += $(REPLAY_OBJECTS)
$(BIN)/holdfast-replay: $(REPLAY_OBJECTS)
	@mkdir -p $(@D)
	$(call say,LINK)$(link) -ljansson

# Programs of the tests that use the library as anybody would: its public header, nothing else.
$(BIN)/holdfast-history: $(O)/tests/chaos/history.o $(BIN)/../lib/libholdfast.a
	@mkdir -p $(@D)
	$(call say,LINK)$(link) $(LD_CLIENT)
$(BIN)/holdfast-load: $(O)/tests/bench/load.o $(BIN)/../lib/libholdfast.a
	@mkdir -p $(@D)
	$(call say,LINK)$(link) $(LD_CLIENT)
$(BIN)/holdfast-gaps: $(O)/tests/bench/gaps.o $(BIN)/../lib/libholdfast.a
	@mkdir -p $(@D)
	$(call say,LINK)$(link) $(LD_CLIENT)
OBJECTS += $(O)/tests/chaos/history.o $(O)/tests/bench/load.o $(O)/tests/bench/gaps.o

# The storage engine by itself, with all that it needs of the folders below it.
ENGINE_OBJECTS := $(call objects,$(LIB_engine) $(LIB_storage) $(LIB_envos) $(LIB_env) $(LIB_base))
$(BIN)/../lib/libholdfast-storage.a: $(ENGINE_OBJECTS)
	@mkdir -p $(@D)
	@rm -f $@ && ar rcsD $@ $^
LD_ENGINE := -luring -luv -llz4 -lzstd -lm

$(BIN)/holdfast-engine-writer: $(O)/tests/integration/engine_writer.o $(BIN)/../lib/libholdfast-storage.a
	@mkdir -p $(@D)
	$(call say,LINK)$(link) $(LD_ENGINE)
OBJECTS += $(O)/tests/integration/engine_writer.o

# Ours and its peers, in one program.
KVBENCH := $(wildcard tests/bench/storage/*.c)
$(BIN)/holdfast-kvbench: $(call objects,$(KVBENCH)) $(BIN)/../lib/libholdfast-storage.a
	@mkdir -p $(@D)
	$(call say,LINK)$(link) $(LD_ENGINE) -lleveldb -lrocksdb
OBJECTS += $(call objects,$(KVBENCH))

# What tries to break the engine: the simulated world and the real one.
TORTURE := $(call sources,tests/torture)
LIBS_TORTURE := $(foreach lib,sim engine server proto storage raft envos env base,$(call archive,$(lib)))
$(BIN)/holdfast-torture: $(call objects,$(TORTURE)) $(LIBS_TORTURE)
	@mkdir -p $(@D)
	$(call say,LINK)$(link) $(LD_SERVER)
OBJECTS += $(call objects,$(TORTURE))
# Needs libfuse3-dev, which building and running Holdfast doesn't.
$(BIN)/holdfast-power-disk: tests/torture/power/disk.c Makefile
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< $$(pkg-config --cflags --libs fuse3)

# ---- Tests -------------------------------------------------------------------------------------------------------
UNIT_SOURCES := $(wildcard tests/unit/test_*.c)
UNIT_TESTS := $(patsubst tests/unit/%.c,$(O)/tests/%,$(UNIT_SOURCES))
OBJECTS += $(call objects,$(UNIT_SOURCES)) $(O)/tests/sim/main.o $(O)/node/server/main.o $(O)/node/ctl/main.o

$(UNIT_TESTS): $(O)/tests/%: $(O)/tests/unit/%.o $(foreach lib,$(LIBS_ALL),$(call archive,$(lib)))
	@mkdir -p $(@D)
	$(call say,LINK)$(link) -lcmocka $(LD_SERVER)

$(O)/tests/test_dump: | $(BIN)/holdfast-dump
unit-tests: $(UNIT_TESTS)

FUZZERS := $(patsubst tests/fuzz/%.c,$(O)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
OBJECTS += $(call objects,$(wildcard tests/fuzz/fuzz_*.c))
$(FUZZERS): $(O)/fuzz/%: $(O)/tests/fuzz/%.o $(foreach lib,$(LIBS_ALL),$(call archive,$(lib)))
	@mkdir -p $(@D)
	$(call say,LINK)$(link) -fsanitize=fuzzer $(LD_SERVER)

fuzzers: $(FUZZERS)

SECONDS_EACH ?= 60
fuzz: ## every fuzzer for SECONDS_EACH=60
	@tests/fuzz/fuzz $(SECONDS_EACH)

test: ## every test of the short set, packages included; T=name runs those whose name contains it
	@$(MAKE) --no-print-directory deps deps-test
	@tests/run short "$(T)"

test-long: ## the long set: more rounds, more seeds
	@$(MAKE) --no-print-directory deps deps-test
	@tests/run long "$(T)"

check: ## unit tests only, without looking for packages
	@tests/run unit "$(T)"

asan: ## unit tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@tests/run asan "$(T)"

tsan: ## threaded tests under ThreadSanitizer
	@tests/run tsan "$(T)"

storage-torture: ## everything that tries to break the storage engine, whole: crashes, faults, options, corruption, power
	@$(MAKE) --no-print-directory deps deps-test
	@tests/run torture

SEEDS ?= 200
FIRST ?= 1
sim: $(BIN)/holdfast-sim ## simulate: SEEDS=200 [FIRST=1], or SEED=n [TRACE=file.ndjson]
	@$(BIN)/holdfast-sim $(if $(SEED),--seed $(SEED) $(if $(TRACE),--trace $(TRACE)),--seeds $(SEEDS) --first $(FIRST)) $(SIMFLAGS)

mutants: ## bugs that the simulator, unit tests or torture must find; MUTANTS="name..."
	@O=$(O) GEN=$(GEN) BIN=$(BIN) tests/sim/mutants/run $(MUTANTS)

# ---- Objects -----------------------------------------------------------------------------------------------------
$(O)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# Generated code isn't ours to warn about.
$(O)/gen/%.o: $(GEN)/%.c
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(CPPFLAGS) $(filter-out $(WARNINGS),$(CFLAGS)) -MMD -MP -c -o $@ $<

$(GEN)/%.pb-c.c $(GEN)/%.pb-c.h &: %.proto
	@mkdir -p $(@D)
	$(call say,GEN)protoc-c --c_out=$(GEN) $<

# Generated headers before the first compile that may include them.
$(OBJECTS): | $(PROTO_C)
.SECONDARY:

-include $(OBJECTS:.o=.d)

# ---- Packages ----------------------------------------------------------------------------------------------------
deps: ## install what building and running needs
	@deploy/install-packages build

deps-test: ## install what the tests need
	@deploy/install-packages test

deps-bench: ## install the peers that benchmarks compare with
	@deploy/install-packages bench

# ---- Local cluster -----------------------------------------------------------------------------------------------
cluster: ## install what is missing, build, start three nodes on loopback
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory -j2 all
	@deploy/local-cluster up

cluster-stop: ## stop the local cluster, keep its data
	@deploy/local-cluster down

cluster-wipe: ## stop the local cluster and delete its data
	@deploy/local-cluster wipe

deploy-test: ## three booted systemd containers, installed and run as an operator would
	@$(MAKE) --no-print-directory deps deps-test
	@$(MAKE) --no-print-directory -j2 all $(BIN)/holdfast-history
	@tests/run program tests/deploy/test_deploy.sh

bench-cluster: ## our cluster and etcd in alternation (needs deps-bench)
	@$(MAKE) --no-print-directory deps deps-bench
	@$(MAKE) --no-print-directory -j2 all
	@tests/bench/bench-cluster

bench-failover: ## how long writes stand still when the leader is lost, in four ways; BENCHFLAGS="--trials 3"
	@$(MAKE) --no-print-directory -j2 all $(BIN)/holdfast-gaps
	@tests/bench/bench-failover $(BENCHFLAGS)

bench-steady: ## elections of a healthy cluster on a busy machine; BENCHFLAGS="--seconds 600"
	@$(MAKE) --no-print-directory -j2 all $(BIN)/holdfast-load
	@tests/bench/bench-steady $(BENCHFLAGS)

bench-storage: ## our engine, LevelDB and RocksDB over the same workloads (needs deps-bench); BENCHFLAGS="--growth"
	@$(MAKE) --no-print-directory deps deps-bench
	@$(MAKE) --no-print-directory -j2 $(BIN)/holdfast-kvbench
	@tests/bench/bench-storage $(BENCHFLAGS)

chaos: ## kills, pauses and faults on real processes, with a history that is checked
	@$(MAKE) --no-print-directory -j2 all
	@tests/chaos/chaos $(CHAOSFLAGS)

install: all ## install to DESTDIR with PREFIX
	@deploy/install "$(DESTDIR)" "$(PREFIX)" "$(VERSION)"

# ---- Housekeeping ------------------------------------------------------------------------------------------------
C_FILES = $(shell git ls-files '*.c' '*.h')
format: ## clang-format everything in place
	@clang-format -i $(C_FILES)

tidy: ## clang-format, clang-tidy, dependency arrows, forbidden calls, sizes
	@tests/lint/tidy

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

clean: ## delete build/, but not the local cluster's data
	@find build -mindepth 1 -maxdepth 1 ! -name cluster -exec rm -rf {} + 2>/dev/null || true


.PHONY: FORCE all unit-tests fuzzers fuzz test test-long check asan tsan storage-torture sim mutants deps deps-test deps-bench cluster cluster-stop cluster-wipe \
    deploy-test bench-cluster bench-failover bench-steady bench-storage chaos install format tidy help clean
