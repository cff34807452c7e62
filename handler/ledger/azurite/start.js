// Starts the emulator's table service with the arguments given, and ends it when standard input ends, so that no
// emulator outlives the test that started it, however that ended.
process.stdin.on("end", () => process.exit(0)).resume();
require("azurite/dist/src/table/main.js");
