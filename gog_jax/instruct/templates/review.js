'use strict';
// Keeps what a reviewer says, and exports it. Ids and notes are only ever read
// from attributes and written as values or text: nothing of them is markup.
(function () {
  const main = document.getElementById('samples');
  const fingerprint = main.dataset.fingerprint;
  const key = 'gog_jax_review/' + fingerprint;
  const sections = Array.from(document.querySelectorAll('.sample'));

  function read(section) {
    const chosen = section.querySelector('input[type=radio]:checked');
    return {
      verdict: chosen ? chosen.value : '',
      note: section.querySelector('.remark').value,
    };
  }

  function everything() {
    const samples = {};
    for (const section of sections) {
      const said = read(section);
      if (said.verdict || said.note.trim()) samples[section.dataset.id] = said;
    }
    return {gog_jax_review: 1, fingerprint: fingerprint, samples: samples};
  }

  function count() {
    const said = sections.map((section) => read(section).verdict);
    const n = (word) => said.filter((one) => one === word).length;
    document.getElementById('count').textContent =
      n('accept') + ' accepted, ' + n('reject') + ' rejected, ' +
      n('') + ' to do.';
  }

  function keep() {
    count();
    try {
      localStorage.setItem(key, JSON.stringify(everything()));
    } catch (error) {  // A browser that keeps nothing of local files.
      document.getElementById('kept').textContent =
        'This browser keeps nothing: export before you close the page.';
    }
  }

  function restore() {
    let saved = null;
    try {
      saved = JSON.parse(localStorage.getItem(key));
    } catch (error) {
      return;
    }
    if (!saved || !saved.samples) return;
    for (const section of sections) {
      const said = saved.samples[section.dataset.id];
      if (!said) continue;
      for (const box of section.querySelectorAll('input[type=radio]')) {
        box.checked = box.value === said.verdict;
      }
      section.querySelector('.remark').value = said.note;
    }
  }

  function download() {
    const text = JSON.stringify(everything(), null, 2) + '\n';
    const link = document.getElementById('file');
    link.href = URL.createObjectURL(
      new Blob([text], {type: 'application/json'}));
    link.download = 'review.json';
    link.click();
  }

  restore();
  count();
  main.addEventListener('input', keep);
  document.getElementById('export').addEventListener('click', download);
})();
