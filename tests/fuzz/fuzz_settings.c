/* SPDX-License-Identifier: ISC */
/*
 * fuzz_settings: reading the environment (settings.h). The input is lines NAME=value; a vertical
 * tab in a value stands for a line break. Values are in the range of the table, each setting is
 * printed as one printable line, and an error is one printable line that begins with a setting's
 * name. None of these texts depends on the letters of a password.
 */
#include "fuzz.h"

#include "config/settings.h"

/* The environment: terminated variables, one after the other, and an empty one. */
static const char *environment;

static char *
get(const char *name)
{
	size_t length = strlen(name);

	for (const char *at = environment; *at != '\0'; at += strlen(at) + 1) {
		if (strncmp(at, name, length) == 0 && at[length] == '=')
			return (char *)(uintptr_t)(at + length + 1);
	}
	return NULL;
}

/* The caller frees it. */
static char *
make_environment(const uint8_t *data, size_t size)
{
	char *out = fuzz_memory(size + 2);
	size_t length = 0;

	for (size_t i = 0; i < size; i++) {
		char c = (char)data[i];

		if (c == '\n' || c == '\0') {
			if (length > 0 && out[length - 1] != '\0')
				out[length++] = '\0';
		} else {
			out[length++] = c == '\v' ? '\n' : c;
		}
	}
	out[length] = out[length + 1] = '\0';
	return out;
}

/* The result of a load. */
struct outcome {
	bool loaded;
	struct error error;
	char *printed; /* owned */
};

static void
check_value(const struct settings *s, const struct setting *setting)
{
	const char *field = (const char *)s + setting->offset;
	int number = 0, choices = 0;

	if (setting->type == SETTING_STRING) {
		REQUIRE(*(char *const *)field != NULL);
		REQUIRE(setting->check == NULL || setting->check(*(char *const *)field) == 0);
		return;
	}
	memcpy(&number, field, sizeof(number));
	if (setting->type == SETTING_CHOICE) {
		while (setting->choices[choices] != NULL)
			choices++;
		REQUIRE(number >= 0 && number < choices);
		return;
	}
	REQUIRE((number >= setting->minimum && number <= setting->maximum) ||
	    (number == 0 && setting->zero_is_off));
}

static char *
print(const struct settings *s, enum settings_program program)
{
	char *printed = NULL;
	size_t length;
	FILE *out = open_memstream(&printed, &length);

	REQUIRE(out != NULL);
	settings_print(s, program, out);
	REQUIRE(fclose(out) == 0 && printed != NULL && strlen(printed) == length);
	return printed;
}

/* One line for each setting of the program, in the order of the table. */
static void
check_printed(const char *printed, enum settings_program program)
{
	char *copy = strdup(printed), *at = copy;
	const struct setting *table;
	size_t count;

	table = settings_table(&count);
	for (size_t i = 0; i < count; i++) {
		char *line;
		size_t length = strlen(table[i].name);

		if (!(table[i].programs & program))
			continue;
		line = strsep(&at, "\n");
		REQUIRE(line != NULL && fuzz_is_line(line));
		REQUIRE(strncmp(line, table[i].name, length) == 0 && line[length] == '=');
	}
	REQUIRE(at != NULL && *at == '\0');
	free(copy);
}

static void
check_error(const char *error)
{
	const struct setting *table;
	size_t count, i;

	REQUIRE(fuzz_is_line(error) && strlen(error) < ERROR_SIZE - 1);
	table = settings_table(&count);
	for (i = 0; i < count; i++) {
		if (strncmp(error, table[i].name, strlen(table[i].name)) == 0)
			break;
	}
	REQUIRE(i < count);
}

static struct outcome
load(enum settings_program program)
{
	struct outcome o = { 0 };
	struct settings s;
	const struct setting *table;
	size_t count;

	o.loaded = settings_load(&s, program, get, &o.error);
	if (!o.loaded) {
		check_error(o.error.text);
		return o;
	}
	REQUIRE((s.access == ACCESS_FILE) == (s.access_file != NULL));
	table = settings_table(&count);
	for (size_t i = 0; i < count; i++)
		check_value(&s, &table[i]);
	o.printed = print(&s, program);
	check_printed(o.printed, program);
	settings_free(&s);
	settings_free(&s);
	return o;
}

/* A smaller buffer gets the beginning of the same text. */
static void
check_cut(const char *url, const char *masked, size_t size)
{
	char *cut = fuzz_memory(size);

	settings_mask_url(url, cut, size);
	REQUIRE(strlen(cut) < size && strncmp(cut, masked, strlen(cut)) == 0);
	REQUIRE(strlen(cut) == size - 1 || strcmp(cut, masked) == 0);
	free(cut);
}

static void
check_mask(const char *url)
{
	size_t size = strlen(url) + sizeof("***");
	char *other = strdup(url), *masked = fuzz_memory(size), *other_masked = fuzz_memory(size);

	fuzz_change_password(other);
	settings_mask_url(url, masked, size);
	settings_mask_url(other, other_masked, size);
	REQUIRE(strcmp(masked, other_masked) == 0);
	settings_mask_text(url, masked, size);
	settings_mask_text(other, other_masked, size);
	REQUIRE(strcmp(masked, other_masked) == 0);
	settings_mask_url(url, masked, size);
	check_cut(url, masked, 1 + strlen(url) % 32);
	free(other);
	free(masked);
	free(other_masked);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const enum settings_program programs[] = { SETTINGS_STREAMD, SETTINGS_PUBLISH };
	char *variables = make_environment(data, size), *url;
	struct outcome before[2], after[2];

	environment = variables;
	before[0] = load(programs[0]);
	before[1] = load(programs[1]);
	url = get("VALKEY_URL");
	if (url != NULL) {
		check_mask(url);
		fuzz_change_password(url);
	}
	for (int i = 0; i < 2; i++) {
		after[i] = load(programs[i]);
		REQUIRE(before[i].loaded == after[i].loaded);
		REQUIRE(strcmp(before[i].error.text, after[i].error.text) == 0);
		REQUIRE(before[i].printed == NULL ||
		    strcmp(before[i].printed, after[i].printed) == 0);
		free(before[i].printed);
		free(after[i].printed);
	}
	environment = NULL;
	free(variables);
	return 0;
}
