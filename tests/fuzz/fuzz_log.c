/* SPDX-License-Identifier: ISC */
/*
 * fuzz_log: no value can forge a log line (log.h). The input is a message and two values, each ended
 * by NUL. The output is one line of printable ASCII with its object of all keys at the end.
 */
#include "fuzz.h"

#include <fcntl.h>
#include <json-c/json.h>
#include <unistd.h>

#include "base/log.h"

/* Calls log_write() with standard error in a pipe. Returns the number of bytes written to it. */
static size_t
written(const char *message, const struct log_field *fields, char *line, size_t size)
{
	static int ends[2] = { -1, -1 }, own;
	ssize_t n;

	if (ends[0] == -1) {
		REQUIRE(pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0);
		own = dup(STDERR_FILENO);
	}
	REQUIRE(dup2(ends[1], STDERR_FILENO) == STDERR_FILENO);
	log_write(LOG_LEVEL_WARN, "fuzz", message, fields);
	REQUIRE(dup2(own, STDERR_FILENO) == STDERR_FILENO);
	n = read(ends[0], line, size);
	REQUIRE(n > 0);
	return (size_t)n;
}

/* Parses the object that ends at the end of the line and begins with the first key. */
static void
check_object(const char *line, size_t length, int64_t number)
{
	struct json_tokener *tokener = json_tokener_new();
	struct json_object *object, *value;
	const char *start = strstr(line, " {\"first\":");

	REQUIRE(tokener != NULL && start != NULL);
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
	object = json_tokener_parse_ex(tokener, start + 1, (int)(line + length - start - 1));
	REQUIRE(object != NULL && json_tokener_get_parse_end(tokener) == (size_t)(line + length - start - 2));
	REQUIRE(json_object_object_length(object) == 4);
	REQUIRE(json_object_object_get_ex(object, "number", &value));
	REQUIRE(json_object_get_int64(value) == number);
	REQUIRE(json_object_object_get_ex(object, "first", &value));
	REQUIRE(json_object_object_get_ex(object, "second", &value));
	REQUIRE(json_object_object_get_ex(object, "list", &value));
	json_object_put(object);
	json_tokener_free(tokener);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *texts[3], line[LOG_LINE_MAX + 2];
	const uint8_t *end = data + size;
	size_t length;

	for (int i = 0; i < 3; i++) {
		texts[i] = fuzz_text(data, (size_t)(end - data));
		data += strlen(texts[i]) + (data + strlen(texts[i]) < end);
	}
	/* The object is found by its first key, which a message might contain. */
	if (strstr(texts[0], "first") != NULL)
		texts[0][0] = '\0';
	const int32_t list[] = { 1, INT32_MAX, (int32_t)size };
	const struct log_field fields[] = { LOG_STR("first", texts[1]), LOG_INT("number", (int64_t)size),
		LOG_LIST("list", list, 3), LOG_STR("second", texts[2]), LOG_END };
	length = written(texts[0], fields, line, sizeof(line));
	REQUIRE(length <= LOG_LINE_MAX && line[length - 1] == '\n');
	line[length - 1] = '\0';
	REQUIRE(fuzz_is_line(line) && strlen(line) == length - 1);
	REQUIRE(strncmp(line, "[fuzz] ", 7) == 0);
	check_object(line, length, (int64_t)size);
	for (int i = 0; i < 3; i++)
		free(texts[i]);
	return 0;
}
